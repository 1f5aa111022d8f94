"""A cgroup (version 2) for each program with a timeout or limits: no process escapes from it.

With systemd, these cgroups are children of a unit of their own, `qga-programs.service`, which is
created when it is first needed. They cannot be below the agent's own unit: a cgroup that controls
its children may contain no processes, so systemd could not restart the agent while programs that
outlive it are running. A sleeping process keeps the unit alive, because systemd removes the cgroup
of a unit without processes. Without systemd they are children of the root cgroup. In a container
that is a cgroup like any other: if it is writable it was delegated, and the processes of the
container are moved to a child, because a cgroup that controls its children may contain none.

The name of a cgroup contains the process ID of its agent and its deadline, so that a restarted
agent can take over what an earlier one left behind.
"""

from __future__ import annotations

import os
import signal
import time
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import suppress
from errno import EBUSY
from itertools import count
from typing import Optional

from qga.programs.leftover_jobs import JOB_PLACES
from qga.programs.limits import MOST, MOST_CPU, Limits
from qga.records import NamedTuple

ROOT = "/sys/fs/cgroup"

_SYSTEMD = "/run/systemd/system"  # sd_booted(3)
_KEEPER = "keeper"
_OTHERS = f"{ROOT}/qga-others"
_NEEDED = {"memory", "pids"}
_START_UNIT = (
    "systemd-run",
    "--quiet",
    "--no-ask-password",
    f"--unit={os.path.basename(JOB_PLACES[0])}",
    "--description=Programs that the QEMU guest agent has started",
    "--collect",
    "--service-type=exec",
    "--property=Delegate=yes",
    "--property=OOMPolicy=continue",  # by default systemd would stop all programs
    "--property=OOMScoreAdjust=-1000",
    "--property=TasksMax=4096",
    "--property=TimeoutStopSec=5",
    "sleep",
    "infinity",
)
_PATIENCE = 20.0  # seconds for systemd-run
_RETRY_AFTER = 60.0  # seconds after it has failed

_MOST_ROUNDS = 20  # of moving processes: meanwhile they may start others

_PERIOD = 100_000  # microseconds
_MOST_PROCESSES = 4_194_304  # PID_MAX_LIMIT

_numbers = count(1)
_making = allocate_lock()
_ours: set[str] = set()  # paths of the cgroups that this agent has created


class _Parent:
    """Where cgroups are created; None if that is impossible."""

    path: Optional[str] = None
    failed_at = -_RETRY_AFTER


class Name(NamedTuple):
    """The name of a cgroup. deadline: in seconds of CLOCK_BOOTTIME; 0 for none."""

    agent: int
    number: int
    deadline: int

    def __str__(self) -> str:
        return "-".join(map(str, self))


class Cgroup:
    """A cgroup, empty until a process writes to the descriptor of `open_entrance`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._events = os.open(f"{path}/cgroup.events", os.O_RDONLY)

    @property
    def populated(self) -> bool:
        """Whether it contains a process. Reading this also arms the descriptor of `fileno`."""
        return b"populated 1" in os.pread(self._events, 4096, 0)

    def fileno(self) -> int:
        """A descriptor that reports EPOLLPRI when `populated` may have changed."""
        return self._events

    def open_entrance(self) -> int:
        """A descriptor; a process that writes 0 to it becomes a member of the cgroup."""
        return os.open(f"{self.path}/cgroup.procs", os.O_WRONLY)

    def signal(self, number: int) -> None:
        """Signal all processes. None survives SIGKILL, even if they fork all the time."""
        if number == signal.SIGKILL:
            self._write("cpu.max", f"max {_PERIOD}")  # throttled processes die slowly
            if self._write("cgroup.kill", "1"):
                return
            self._write("pids.max", "0")  # Linux before 5.14: prevents further forks
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
        """Remove the cgroup if it is empty."""
        os.close(self._events)
        remove(self.path)
        _ours.discard(self.path)

    def _processes(self) -> Iterator[int]:
        for directory, _, _ in os.walk(self.path):  # root's programs may have created children
            with suppress(OSError), open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                yield from map(int, file)

    def _write(self, name: str, text: str) -> bool:
        return _write(f"{self.path}/{name}", text)


def make(limits: Limits, timeout: float | None) -> Cgroup | None:
    """A new cgroup with these limits; None if the guest cannot have one. May block."""
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
            _write(f"{path}/memory.swap.max", "0")  # missing on kernels that do not count swap
        return Cgroup(path)
    except BaseException:
        remove(path)
        raise


def controllers() -> set[str]:
    """The cgroup v2 controllers of this guest; empty without cgroup v2."""
    return _words(f"{ROOT}/cgroup.controllers")


def left_behind() -> Iterator[tuple[Cgroup, float | None]]:
    """The cgroups of agents that no longer run, each with its remaining seconds, if limited."""
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
            with suppress(OSError):  # removed in the meantime
                rest = name.deadline - _now() if name.deadline else None
                yield Cgroup(f"{parent}/{text}"), rest


def remove(path: str) -> None:
    """Remove a cgroup and its children as far as they are empty."""
    for directory, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)


def _files(limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.memory is not None:
        yield "memory.max", str(min(limits.memory, MOST))  # the kernel ignores further bits
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
        os.makedirs(f"{path}/{_KEEPER}", exist_ok=True)
        _move(path, f"{path}/{_KEEPER}")
        _enable(path)
    except OSError:
        return None
    is_ours = os.access(path, os.W_OK)  # not with ProtectControlGroups=yes
    return path if is_ours and _words(f"{path}/cgroup.subtree_control") >= _NEEDED else None


def _unit() -> str:
    path = JOB_PLACES[0]
    if not os.path.isdir(path):
        from qga.programs.run import run

        run(list(_START_UNIT), _PATIENCE)
    return path


def _below_the_root() -> str:
    if os.path.exists(f"{ROOT}/cgroup.type"):  # it is the root of a container only
        _move(ROOT, _OTHERS)
    _enable(ROOT)
    path = JOB_PLACES[1]
    os.makedirs(path, exist_ok=True)
    return path


def _move(group: str, below: str) -> None:
    """Move the processes of a group below it: it may limit other groups only if it has none.

    Raises OSError if there are such that we may not move, or do not see, which are listed as 0.
    Nothing may be enabled before: cpu and pids could, and would make the group one of threads.
    """
    for _ in range(_MOST_ROUNDS):
        processes = _words(f"{group}/cgroup.procs")
        if not processes:
            return
        if "0" in processes:
            break
        os.makedirs(below, exist_ok=True)
        for pid in processes:
            _write(f"{below}/cgroup.procs", pid)
    raise OSError(EBUSY, os.strerror(EBUSY))


def _words(path: str) -> set[str]:
    """The words of a file; none where it cannot be read."""
    try:
        with open(path, encoding="ascii") as file:
            return set(file.read().split())
    except OSError:
        return set()


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
