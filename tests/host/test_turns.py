"""While qgactl runs a program in a real guest, others have their turn at the agent's socket.

QEMU serves one client of it at a time. The same holds with QEMU's own agent in the guest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qga.client import GuestAgent
from qga.client.threads import beside
from tests.guest.service import wait_for
from tests.guest.vm import AGENT_PORT, DATA_PORTS, ORIGINAL_PORT, Guest
from tests.integration.qgactl_process import QGACTL, SLOW, environment
from tests.integration.terminals import Terminal

pytestmark = pytest.mark.timeout(120)

GATE = "/var/tmp/gate"
# The program waits for what the others do.
PROGRAM = f"echo first; touch {GATE}.waits; cat {GATE}; echo last >&2; exit 3"


class Host:
    """qgactl, and others, for one agent of the guest."""

    def __init__(self, address: str, **variables: str) -> None:
        self.address = address
        self.env = {**environment(address), "TERM": "xterm", **variables}

    def execute(self, script: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*QGACTL, *SLOW, "exec", "--", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The program, while it runs."""
        with self.execute(PROGRAM) as process:
            try:
                wait_for(self.waits, "the program to run")
                yield process
            finally:
                process.kill()

    def waits(self) -> bool:
        with self.another() as another:
            return another.exec(["test", "-e", f"{GATE}.waits"]).returncode == 0

    def another(self) -> GuestAgent:
        return GuestAgent(self.address, 60)


@pytest.fixture(params=["port", "agent", "original"])
def host(request: pytest.FixtureRequest, guest: Guest) -> Iterator[Host]:
    """With a data port, over the agent alone, and with QEMU's agent."""
    guest.run(["mkfifo", GATE])
    no_ports = " ".join(f"{port.name}=" for port in DATA_PORTS)
    if request.param == "original":
        assert guest.original
        guest.original.close()
        yield Host(f"unix:{guest.channel_path(ORIGINAL_PORT)}")
        guest.original = guest.connect(ORIGINAL_PORT)
    else:
        ports = no_ports if request.param == "agent" else ""
        yield Host(f"unix:{guest.channel_path(AGENT_PORT)}", QGA_DATA_PORT=ports)
    guest.run(["rm", "-f", GATE, f"{GATE}.waits"])


def test_others_have_their_turn(host: Host) -> None:
    with host.running() as process:
        for _ in range(20):
            with host.another() as another:
                another.ping()
        assert process.poll() is None
        with host.another() as another:
            another.exec(["sh", "-c", f"seq 2000 >{GATE}"], timeout=60, check=True)
        out, err = process.communicate(timeout=300)
    numbers = "".join(f"{number}\n" for number in range(1, 2001))
    assert (process.returncode, out.decode(), err) == (3, f"first\n{numbers}", b"last\n")


def test_a_backup_freezes_and_thaws(host: Host) -> None:
    with host.running() as process:
        with host.another() as backup:
            assert backup.freeze().count
        with host.another() as backup:
            assert backup.freeze_status() == "frozen"
        assert process.poll() is None
        with host.another() as backup:
            assert backup.thaw()
            assert backup.exec(["sh", "-c", f"echo thawed >{GATE}"], timeout=60).returncode == 0
        assert process.communicate(timeout=300) == (b"first\nthawed\n", b"last\n")
        assert process.returncode == 3


@pytest.mark.parametrize("host", ["agent", "original"], indirect=True)
def test_more_than_the_queue_has_room_for(host: Host) -> None:
    def ask() -> None:
        with host.another() as client:
            client.ping()

    for asking in [beside(ask) for _ in range(20)]:
        asking.result(100)


@pytest.mark.parametrize("host", ["port", "agent"], indirect=True)
def test_a_shell(host: Host) -> None:
    with Terminal([*QGACTL, *SLOW, "shell"], host.env) as screen:
        screen.type("PS1='ready'':'; stty -echo\r")
        screen.expect("ready:")
        for number in range(5):
            with host.another() as another:
                another.ping()
                screen.type(f"echo {number} is $(({number}))\r")
            screen.expect(f"{number} is {number}\r\n")
        screen.type("exit 5\r")
        assert screen.wait() == 5
