"""Programs in a guest, as a user and within limits, against root and against ssh.

All are measured in turn, in one guest: started there by a process that does nothing else, by
qga-exec with a data port and without, by QEMU's agent, and by ssh over QEMU's user network, with a
connection for each program and through one that is open. Before each the guest is idle for a
moment, also before a ping.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.ways import GUEST_ADDRESS, free_port
from tests.guest.agent_socket import AgentSocket, encode
from tests.guest.data_port import OTHER_PORT, PORT, Link, result
from tests.guest.forwarding import Ssh, services
from tests.guest.vm import Guest

OWN = """
import subprocess, sys, time
for line in sys.stdin:
    begin = time.perf_counter()
    program = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
    program.stdout.read(1)
    first = time.perf_counter() - begin
    program.stdout.close()
    program.wait()
    print(first, time.perf_counter() - begin, flush=True)
"""
"""What a program takes if it is started in the guest: until its first byte, and until its end."""

WRITER = ["/bin/echo", "x"]

REST = 0.1
"""Seconds in which the guest ends what the measurement before has left it to do."""

PAUSE = 0.002

WAYS: dict[str, dict[str, Any]] = {
    "as root": {},
    "as nobody": {"user": "nobody"},
    "as nobody, within limits": {"user": "nobody", "timeout": 60, "limits": {"memory": 1 << 30}},
}

Times = dict[str, list[float]]


def own(probe: Link) -> tuple[float, float]:
    """Seconds until the first byte of a program, and until its end, in the guest itself."""
    probe.send(b"\n")
    first, end = map(float, probe.take_until(b"\n").split())
    return first, end


def by_port(agent: AgentSocket, link: Link, how: dict[str, Any]) -> tuple[float, float]:
    """The same by one request, with the output pushed over a data port."""
    begin = time.perf_counter()
    wanted = {"path": WRITER[0], "arg": WRITER[1:], "port": PORT.name, **how}
    agent.send(encode("qga-exec", wanted))
    link.take(1)
    first = time.perf_counter() - begin
    pid = result(agent)["pid"]
    link.take(1)
    while not agent.execute("qga-exec-read", pid=pid)["exited"]:
        time.sleep(PAUSE)
    return first, time.perf_counter() - begin


def by_requests(agent: AgentSocket, how: dict[str, Any]) -> tuple[float, float]:
    """The same with the output fetched by further requests."""
    begin, first, read = time.perf_counter(), 0.0, 0
    pid = agent.execute("qga-exec", path=WRITER[0], arg=WRITER[1:], **how)["pid"]
    while True:
        seen = agent.execute("qga-exec-read", pid=pid, offset=read)
        now = time.perf_counter() - begin
        read = seen["out-total"]
        first = first or (now if read else 0.0)
        if seen["exited"]:
            return first, now
        time.sleep(PAUSE)


def by_original(agent: AgentSocket) -> tuple[float, float]:
    """The same by QEMU's agent, which returns the output when the program has ended."""
    begin = time.perf_counter()
    wanted = {"path": WRITER[0], "arg": WRITER[1:], "capture-output": True}
    pid = agent.execute("guest-exec", **wanted)["pid"]
    while not agent.execute("guest-exec-status", pid=pid)["exited"]:
        time.sleep(PAUSE)
    end = time.perf_counter() - begin
    return end, end


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
    assert guest.original is not None
    with (
        guest.connect() as agent,
        Link(guest, PORT) as link,
        Link(guest, OTHER_PORT) as probe,
        ssh_to(guest) as commands,
    ):
        arg = ["-c", OWN, *WRITER]
        agent.execute("qga-exec", path="/usr/bin/python3", arg=arg, port=OTHER_PORT.name)
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            "in the guest": lambda: own(probe),
            **{name: partial(by_port, agent, link, how) for name, how in WAYS.items()},
            "as root, without a data port": partial(by_requests, agent, {}),
            "by QEMU's agent": partial(by_original, guest.original),
            **{name: partial(by_ssh, line) for name, line in commands.items()},
            "ping": lambda: (ping(agent),) * 2,
        }
        for number in range(rounds + 1):
            for name, way in ways.items():
                time.sleep(REST)
                times = way()
                if number:  # the first makes files and units
                    first[name].append(times[0])
                    end[name].append(times[1])
    return {name: (median(first[name]), median(end[name])) for name in first}


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
