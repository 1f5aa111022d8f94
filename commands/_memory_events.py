"""Events for memory pressure, and for processes that the OOM killer ended."""

from __future__ import annotations

import os
import re
import select
from errno import EPIPE
from typing import TYPE_CHECKING

from ._sysfs import understood

if TYPE_CHECKING:
    from typing import Callable

    from qga.loop import Loop

    Tell = Callable[..., None]

_PRESSURE = "/proc/pressure/memory"
# The kernel reports at most once per window. Windows of 2 s are open to unprivileged users
# (psi.rst), and 200 ms is systemd's threshold (DefaultMemoryPressureThresholdSec=).
_TRIGGER = b"some 200000 2000000\0"  # microseconds

_LOG = "/dev/kmsg"
_RECORD_SIZE = 8192  # the longest record, or the kernel returns EINVAL
_TURN = 64  # records before other connections get a turn
_KILLED = re.compile(rb"Killed process ([0-9]+) \((.*?)\)(?:, UID [0-9]+,)? total-vm:")
# Of a cgroup with memory.oom.group: the kernel then logs its processes, and the first one again.
_WITH_ITS_GROUP = b"are going to be killed due to memory.oom.group"
_NEXT = b" invoked oom-killer: "
_FACILITY = 8  # the kernel's own records have a lower priority value, which programs cannot set


class Pressure:
    """Calls `tell` with memory-pressure while programs wait for memory. Raises OSError."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._fd = os.open(_PRESSURE, os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(self._fd, _TRIGGER)
        except BaseException:
            os.close(self._fd)
            raise

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        loop.watch(self._fd, self._on_pressure, select.EPOLLPRI)

    def close(self) -> None:
        self._loop.unwatch(self._fd)
        os.close(self._fd)

    def _on_pressure(self, _events: int) -> None:
        figures = pressure_of(os.pread(self._fd, 4096, 0))
        self._tell("memory-pressure", **figures)


def pressure_of(text: bytes) -> dict[str, float]:
    """The ten-second averages in a file such as /proc/pressure/memory."""
    return dict(understood(_average, text.decode("ascii", "replace").splitlines()))


def _average(line: str) -> tuple[str, float]:
    """Raises ValueError or LookupError."""
    kind, *pairs = line.split()
    figures = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return f"{kind}-avg10-percent", float(figures["avg10"])


class KernelLog:
    """Passes the lines that the kernel logs from now on to functions. Raises OSError.

    on_missed: called when lines were overwritten before they were read.
    """

    def __init__(self, on_missed: Callable[[], None]) -> None:
        self._on_missed = on_missed
        self.listeners: list[Callable[[bytes], None]] = []
        self._fd = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        loop.watch(self._fd, self._on_readable)

    def close(self) -> None:
        self._loop.unwatch(self._fd)
        os.close(self._fd)

    def _on_readable(self, _events: int) -> None:
        for _ in range(_TURN):
            try:
                record = os.read(self._fd, _RECORD_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != EPIPE:
                    raise
                self._on_missed()
                continue
            text = line_of_kernel(record)
            for listener in self.listeners if text else ():
                listener(text)


def line_of_kernel(record: bytes) -> bytes:
    """The text of a record of /dev/kmsg; empty if a program wrote it."""
    head, _, text = record.partition(b";")
    priority = head.split(b",", 1)[0]
    if not priority.isdigit() or int(priority) >= _FACILITY:
        return b""
    return text.split(b"\n", 1)[0]


class Kills:
    """Calls `tell` with out-of-memory for each program that was killed."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last: tuple[int, str] | None = None
        self._logged_again: tuple[int, str] | None = None

    def on_kernel_line(self, text: bytes) -> None:
        killed = _KILLED.search(text)
        if killed:
            self._on_kill(int(killed[1]), os.fsdecode(killed[2]))
        elif _WITH_ITS_GROUP in text:
            self._logged_again = self._last
        elif _NEXT in text:
            self._logged_again = None

    def _on_kill(self, pid: int, name: str) -> None:
        self._last = pid, name
        if self._last == self._logged_again:
            self._logged_again = None
        else:
            self._tell("out-of-memory", pid=pid, name=name)
