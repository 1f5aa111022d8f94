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

_START_TIME = 19  # of proc_pid_stat(5), counted from the field after the name
_MOST = 10_000  # a program may fork faster than this finds its processes


class Descendants:
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


def _start_time(pid: int) -> Optional[str]:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[_START_TIME]
    except OSError:
        return None
