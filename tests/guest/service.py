"""Starts, stops and observes the agent under test as a process of the guest.

All of this goes through the original agent, so that it does not depend on the agent under test.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from .vm import AGENT_PORT, Guest, GuestError, Port, Result

UNIT = "qga-test.service"
PROGRAM = "/opt/qga/qemu-ga"
OPEN_FILES = r"""find "/proc/$1/fd" -type l ! -lname '/proc/*' ! -lname '/sys/*' -printf '%l\n'"""
"""Prints what a process has open. The agent keeps some files of the kernel open, once it has read
them: which ones depends on the tests before."""

HAND_UNITS = (f"by-hand-{number}.service" for number in itertools.count(1))

T = TypeVar("T")


def main_pid(guest: Guest, unit: str = UNIT) -> int:
    """The main process of a unit; 0 if it has none."""
    shown = guest.run(["systemctl", "show", "--property=MainPID", "--value", unit])
    return int(shown.stdout)


@contextmanager
def stopped(guest: Guest) -> Iterator[None]:
    """Stop the unit of the agent, so that its port is free; start it again afterwards."""
    guest.run(["systemctl", "stop", UNIT])
    try:
        yield
    finally:
        guest.run(["systemctl", "start", UNIT])


@contextmanager
def by_hand(guest: Guest, *options: str, limits: Sequence[str] = ()) -> Iterator[str]:
    """Start the agent with these options; yields the name of its unit. It is not restarted.

    limits: settings of systemd.exec(5).
    """
    unit = next(HAND_UNITS)
    properties = [f"--property={limit}" for limit in limits]
    start = ["systemd-run", f"--unit={unit}", "--service-type=exec", *properties]
    guest.run([*start, PROGRAM, *options])
    try:
        yield unit
    finally:
        guest.run(["systemctl", "stop", unit], check=False)


def run_to_its_end(guest: Guest, *options: str) -> Result:
    """Run the agent with options that make it exit, and return how it exited."""
    return guest.run(["timeout", "30", PROGRAM, *options], check=False)


def port_device(guest: Guest, port: Port = AGENT_PORT) -> str:
    """The device node of a port, as the kernel names it: /dev/vportNpM."""
    script = 'for f in /sys/class/virtio-ports/*/name; do echo "$f $(cat $f)"; done'
    for line in guest.run(["/bin/sh", "-c", script]).stdout.splitlines():
        path, name = line.split()
        if name == port.name:
            return f"/dev/{path.split('/')[-2]}"
    raise GuestError(f"the guest has no port called {port.name}")


def wait_until_asleep(guest: Guest, pid: int) -> None:
    """Wait until a process has started and is idle: it is found sleeping five times in a row."""
    look = f"cut -d ' ' -f 3 /proc/{pid}/stat"
    script = f"for look in 1 2 3 4 5; do {look}; sleep 0.2; done"
    wait_for(
        lambda: guest.run(["/bin/sh", "-c", script]).stdout.split() == ["S"] * 5,
        f"process {pid} to sleep",
    )


def state_of(guest: Guest, pid: int) -> str:
    """The state of a process as in proc_pid_stat(5). D is a wait that no signal ends."""
    stat = guest.run(["cat", f"/proc/{pid}/stat"]).stdout
    return stat.rpartition(")")[2].split()[0]


def open_files(guest: Guest, pid: int) -> list[str]:
    """The open files of a process besides those of the kernel, as named in /proc."""
    argv = ["/bin/sh", "-c", OPEN_FILES, "sh", str(pid)]
    return guest.run(argv, check=False).stdout.splitlines()


def wait_until_quiet(guest: Guest, pid: int) -> None:
    """Wait until a process has not run for a second."""
    wait_for(lambda: switches_in(guest, pid, seconds=1) == 0, f"process {pid} to be quiet")


def switches_in(guest: Guest, pid: int, seconds: float) -> int:
    """How often threads of a process are scheduled within the next `seconds`."""
    count = f"cat /proc/{pid}/task/*/status | grep ctxt_switches | tr -cd '0-9\\n'"
    script = f"{count} && echo then && sleep {seconds} && {count}"
    before, after = guest.run(["/bin/sh", "-c", script]).stdout.split("then")
    return sum(map(int, after.split())) - sum(map(int, before.split()))


def wait_for(look: Callable[[], T], what: str, timeout: float = 60) -> T:
    """Call a function repeatedly until its result is true, and return that."""
    deadline = time.monotonic() + timeout
    asked = time.monotonic()
    while not (seen := look()):
        answered = time.monotonic()
        if answered > deadline:
            raise GuestError(f"waited {timeout:.0f} s in vain for {what}")
        # A look keeps the emulated processors from what is waited for: half of the time at most.
        time.sleep(min(max(0.1, answered - asked), 1))
        asked = time.monotonic()
    return seen
