"""Programs in a guest, as a user and within limits, against root and against ssh.

All are measured in turn, in one guest, by qga-exec and qga-exec-read on the agent's port, and by
ssh over QEMU's user network: with a connection for each program, and through one that is open.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.ways import GUEST_ADDRESS, free_port
from tests.guest.agent_socket import AgentSocket
from tests.guest.forwarding import Ssh, services
from tests.guest.vm import Guest

OWN = """
import subprocess, sys, time
first, end = [], []
for _ in range(int(sys.argv[1])):
    begin = time.perf_counter()
    program = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE)
    program.stdout.read(1)
    first.append(time.perf_counter() - begin)
    program.wait()
    end.append(time.perf_counter() - begin)
print(sorted(first)[len(first) // 2], sorted(end)[len(end) // 2])
"""
"""What a program takes if it is started in the guest: until its first byte, and until its end."""

WRITER = ["/bin/echo", "x"]

WAYS: dict[str, dict[str, Any]] = {
    "as root": {},
    "as nobody": {"user": "nobody"},
    "as nobody, within limits": {"user": "nobody", "timeout": 60, "limits": {"memory": 1 << 30}},
}

Times = dict[str, list[float]]


def by_agent(agent: AgentSocket, how: dict[str, Any]) -> tuple[float, float]:
    """Seconds until the first byte of a program, and until its end."""
    begin, first, read = time.perf_counter(), 0.0, 0
    pid = agent.execute("qga-exec", path=WRITER[0], arg=WRITER[1:], **how)["pid"]
    while True:
        seen = agent.execute("qga-exec-read", pid=pid, offset=read)
        now = time.perf_counter() - begin
        read = seen["out-total"]
        first = first or (now if read else 0.0)
        if seen["exited"]:
            return first, now


def by_ssh(command: list[str]) -> tuple[float, float]:
    begin = time.perf_counter()
    with subprocess.Popen([*command, *WRITER], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        if program.stdout.read(1) != b"x":
            raise ConnectionError("ssh does not reach the guest")
        first = time.perf_counter() - begin
        program.wait()
    return first, time.perf_counter() - begin


def ping(agent: AgentSocket) -> float:
    begin = time.perf_counter()
    agent.execute("guest-ping")
    return time.perf_counter() - begin


@contextmanager
def ssh_to(guest: Guest) -> Iterator[dict[str, list[str]]]:
    """Command lines of ssh: with a connection of their own, and through one that is open."""
    with tempfile.TemporaryDirectory() as folder:
        ssh = Ssh(guest, Path(folder))
        port, place = free_port(), "root@127.0.0.1"
        rule = f"net tcp:127.0.0.1:{port}"
        options = ["-F", "none", "-i", str(ssh.key), "-p", str(port), "-o", "LogLevel=ERROR"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/hosts"]
        shared = [*options, "-o", f"ControlPath={folder}/control"]
        guest.qmp("human-monitor-command", command_line=f"hostfwd_add {rule}-{GUEST_ADDRESS}:22")
        with services(guest, ssh.public, "0.0.0.0"):
            subprocess.run(["ssh", *shared, "-fNM", place], check=True, timeout=120)
            try:
                yield {
                    "by ssh": ["ssh", *options, place],
                    "by ssh, connected": ["ssh", *shared, place],
                }
            finally:
                subprocess.run(
                    ["ssh", *shared, "-O", "exit", place], check=False, capture_output=True
                )
                guest.qmp("human-monitor-command", command_line=f"hostfwd_remove {rule}")


def measure(guest: Guest, rounds: int) -> dict[str, tuple[float, float]]:
    """Medians in seconds of the first byte and the end, by the way; and of a ping."""
    first: Times = defaultdict(list)
    end: Times = defaultdict(list)
    with guest.connect() as agent, ssh_to(guest) as commands:
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            **{name: lambda how=how: by_agent(agent, how) for name, how in WAYS.items()},  # type: ignore[misc]
            **{name: lambda line=line: by_ssh(line) for name, line in commands.items()},  # type: ignore[misc]
            "ping": lambda: (ping(agent),) * 2,
        }
        for number in range(rounds + 1):
            for name, way in ways.items():
                times = way()
                if number:  # the first makes files and units
                    first[name].append(times[0])
                    end[name].append(times[1])
    own = guest.python(OWN, str(rounds), *WRITER).split()
    return {
        "in the guest": (float(own[0]), float(own[1])),
        **{name: (median(first[name]), median(end[name])) for name in first},
    }


def table(found: dict[str, tuple[float, float]]) -> str:
    pause, root = found.pop("ping")[0], found["as root"]
    lines = [
        f"A ping takes {pause * 1000:.1f} ms.",
        "",
        "| `echo x` | first byte, ms | beyond its own time, pings | end, ms | against root |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, (first, end) in found.items():
        beyond = (first - found["in the guest"][0]) / pause
        lines.append(
            f"| {name} | {first * 1000:.1f} | {beyond:.1f} | {end * 1000:.1f} "
            f"| {end / root[1]:.2f} |"
        )
    return "\n".join([*lines, ""])
