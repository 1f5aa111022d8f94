"""A program and its descendants, for guests without cgroups.

They are the members of its process group, its children, and their children. What must stay true:
no unrelated process is signalled. So the program must not have been reaped, which keeps its process
ID from being reused, and descendants are identified by their start time as well. A process that
has left the group and lost its parent between two scans is not found; that takes a cgroup.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Optional

# Fields of proc_pid_stat(5), counted from the one after the name.
_USER_TIME, _SYSTEM_TIME, _START_TIME = 11, 12, 19
_MOST = 10_000  # a program may fork faster than this finds its processes


class Family:
    """pid: the program, the leader of its process group."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._members: dict[int, str] = {}  # start times by pid

    def signal(self, number: int) -> None:
        """Signal all of them, including those that have changed their user, if permitted."""
        self._look()
        with suppress(OSError):
            os.killpg(self._pid, number)
        for pid, start in self._members.items():
            if _start_time(pid) == start:
                with suppress(OSError):
                    os.kill(pid, number)

    def _look(self) -> None:
        pending = [self._pid, *self._members]
        seen = set(pending)
        while pending and len(self._members) < _MOST:
            for child in _children(pending.pop()):
                start = _start_time(child)
                if child not in seen and start is not None:
                    seen.add(child)
                    self._members[child] = start
                    pending.append(child)


def _children(pid: int) -> Iterator[int]:
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                yield from map(int, file.read().split())
    except OSError:  # it has exited
        return


def processor_seconds(pid: int) -> float:
    """The processor time of a process that is not reaped yet; 0 if it cannot be read."""
    fields = _fields(pid)
    ticks = sum(int(fields[index]) for index in (_USER_TIME, _SYSTEM_TIME)) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _start_time(pid: int) -> Optional[str]:
    fields = _fields(pid)
    return fields[_START_TIME] if fields else None


def _fields(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
