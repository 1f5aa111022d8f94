"""A control group (cgroup v2) for each program that has to end: none of its processes escapes.

Where systemd runs the groups are below a unit of their own, `qga-programs.service`, which is made
when it is first needed. Below the agent's own unit they could not be: a cgroup that limits those
below it may hold no process itself, so systemd could not start the agent again while programs run
that outlive it. A process that sleeps keeps the unit, for systemd removes the cgroup of one that
has none. Without systemd the groups are below the root of the cgroups.

The name of a group has the process id of its agent and the time when it has to be over, so that
an agent that is started anew takes over what an earlier one has left.
"""

from __future__ import annotations

import os
import signal
import time
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Optional

from qga.programs.left_jobs import JOB_PLACES
from qga.programs.limits import MOST_CPU, Limits
from qga.records import NamedTuple

ROOT = "/sys/fs/cgroup"

_SYSTEMD = "/run/systemd/system"  # sd_booted(3)
_KEEPER = "keeper"
_START_UNIT = (
    "systemd-run",
    "--quiet",
    "--no-ask-password",
    f"--unit={os.path.basename(JOB_PLACES[0])}",
    "--description=Programs that the QEMU guest agent has started",
    "--collect",
    "--service-type=exec",
    "--property=Delegate=yes",
    "--property=OOMPolicy=continue",  # one program without memory must not end the others
    "--property=OOMScoreAdjust=-1000",
    "--property=TasksMax=4096",
    "--property=TimeoutStopSec=5",
    "sleep",
    "infinity",
)
_PATIENCE = 20.0  # seconds for systemd-run
_RETRY_AFTER = 60.0  # seconds, where it has failed

_PERIOD = 100_000  # microseconds
_MOST_PROCESSES = 4_194_304  # PID_MAX_LIMIT

_numbers = count(1)
_making = allocate_lock()
_ours: set[str] = set()  # paths of groups that this agent has made


class _Parent:
    """Where groups are made; None where they cannot be."""

    path: Optional[str] = None
    failed_at = -_RETRY_AFTER


class Name(NamedTuple):
    """The name of a group. deadline: of CLOCK_BOOTTIME, in seconds; 0 for none."""

    agent: int
    number: int
    deadline: int

    def __str__(self) -> str:
        return "-".join(map(str, self))


class Cgroup:
    """A group, empty until a process writes to `entrance`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._events = os.open(f"{path}/cgroup.events", os.O_RDONLY)

    @property
    def populated(self) -> bool:
        """Whether there is a process in it; after that `events` is readable at the next change."""
        return b"populated 1" in os.pread(self._events, 4096, 0)

    def fileno(self) -> int:
        """A descriptor with EPOLLPRI when `populated` may have changed."""
        return self._events

    def open_entrance(self) -> int:
        """A descriptor: a process that writes 0 to it is in the group."""
        return os.open(f"{self.path}/cgroup.procs", os.O_WRONLY)

    def signal(self, number: int) -> None:
        """Signal all processes; SIGKILL leaves none, whatever they do."""
        if number == signal.SIGKILL:
            self._write("cpu.max", f"max {_PERIOD}")  # or they may end one after the other
            if self._write("cgroup.kill", "1"):
                return
            self._write("pids.max", "0")  # Linux before 5.14: nothing is forked from now on
        for pid in self._processes():
            with suppress(OSError):
                os.kill(pid, number)

    def ran_out_of_memory(self) -> bool:
        try:
            with open(f"{self.path}/memory.events", encoding="ascii") as file:
                return any(line.startswith("oom_kill ") and int(line[9:]) for line in file)
        except OSError:
            return False

    def close(self) -> None:
        """Remove it, if it is empty."""
        os.close(self._events)
        remove(self.path)
        _ours.discard(self.path)

    def _processes(self) -> Iterator[int]:
        for directory, _, _ in os.walk(self.path):  # a program of root's may have made some below
            with suppress(OSError), open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                yield from map(int, file)

    def _write(self, name: str, text: str) -> bool:
        return _write(f"{self.path}/{name}", text)


def make(limits: Limits, timeout: float | None) -> Cgroup | None:
    """A new group with these limits; None where there are no cgroups. May wait."""
    parent = _parent()
    if parent is None:
        return None
    if limits.cpu is not None and not os.path.exists(f"{parent}/{_KEEPER}/cpu.max"):
        return None
    deadline = 0 if timeout is None else int(_now() + timeout) + 1
    path = f"{parent}/{Name(os.getpid(), next(_numbers), deadline)}"
    _ours.add(path)
    os.mkdir(path)
    try:
        for name, text in _files(limits):
            with open(f"{path}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        if limits.memory is not None:
            _write(f"{path}/memory.swap.max", "0")  # which is not there where no swap is counted
        return Cgroup(path)
    except BaseException:
        remove(path)
        raise


def controllers() -> set[str]:
    """The controllers of cgroup v2 that this guest offers; none where there is no cgroup v2."""
    try:
        with open(f"{ROOT}/cgroup.controllers", encoding="ascii") as file:
            return set(file.read().split())
    except OSError:
        return set()


def left_behind() -> Iterator[tuple[Cgroup, float | None]]:
    """Groups of agents that are gone, each with the seconds that are left to it."""
    for parent in JOB_PLACES:
        try:
            names = os.listdir(parent)
        except OSError:
            continue
        for text in names:
            name = _parse(text)
            if name is None or f"{parent}/{text}" in _ours:
                continue
            if name.agent != os.getpid() and _exists(name.agent):
                continue
            with suppress(OSError):  # removed since
                rest = name.deadline - _now() if name.deadline else None
                yield Cgroup(f"{parent}/{text}"), rest


def remove(path: str) -> None:
    """Remove a group and those below it, as far as they are empty."""
    for directory, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)


def _files(limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.memory is not None:
        yield "memory.max", str(limits.memory)
        yield "memory.oom.group", "1"
    if limits.processes is not None:
        yield "pids.max", str(min(limits.processes, _MOST_PROCESSES))
    if limits.cpu is not None:
        yield "cpu.max", f"{int(min(limits.cpu, MOST_CPU) * _PERIOD)} {_PERIOD}"


def _parent() -> str | None:
    with _making:
        if _Parent.path is None or not os.path.isdir(f"{_Parent.path}/{_KEEPER}"):
            _Parent.path = None
            if time.monotonic() - _Parent.failed_at >= _RETRY_AFTER:
                _Parent.path = _make_parent()
                if _Parent.path is None:
                    _Parent.failed_at = time.monotonic()
        return _Parent.path


def _make_parent() -> str | None:
    if os.geteuid() or not os.path.exists(f"{ROOT}/cgroup.controllers"):
        return None
    try:
        path = _unit() if os.path.isdir(_SYSTEMD) else _below_the_root()
        _prepare(path)
        with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
            controllers = file.read().split()
    except OSError:
        return None
    is_ours = os.access(path, os.W_OK)  # not with ProtectControlGroups=yes
    return path if is_ours and {"memory", "pids"} <= set(controllers) else None


def _unit() -> str:
    path = JOB_PLACES[0]
    if not os.path.isdir(path):
        from qga.programs.run import run

        run(list(_START_UNIT), _PATIENCE)
    return path


def _below_the_root() -> str:
    path = JOB_PLACES[1]
    _enable(ROOT)
    os.makedirs(path, exist_ok=True)
    return path


def _prepare(path: str) -> None:
    """Have the parent limit those below it, for which its own processes must be elsewhere."""
    keeper = f"{path}/{_KEEPER}"
    os.makedirs(keeper, exist_ok=True)
    with open(f"{path}/cgroup.procs", encoding="ascii") as file:
        for pid in file.read().split():
            _write(f"{keeper}/cgroup.procs", pid)
    _enable(path)


def _enable(path: str) -> None:
    for controller in ("memory", "pids", "cpu"):
        _write(f"{path}/cgroup.subtree_control", f"+{controller}")


def _write(path: str, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _parse(text: str) -> Name | None:
    try:
        return Name(*map(int, text.split("-")))
    except (TypeError, ValueError):
        return None


def _exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
