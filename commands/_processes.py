"""Daemons of root, by their pid files in /run."""

from __future__ import annotations

import os

from ._sysfs import read_text

_MOST_DIGITS = 10


def pid_in(path: str, name: str) -> int | None:
    """The process of a pid file, if it runs and is called `name`; None otherwise.

    Only root can write to /run. The process is looked up by its number, not by its name, which any
    user can give to a program. A pid file may be older than the process that has its number now:
    one in a container is never taken for the daemon.
    """
    try:
        digits = read_text(path).strip()
        if not digits.isdecimal() or len(digits) > _MOST_DIGITS:
            return None
        process = f"/proc/{digits}"
        if read_text(f"{process}/comm").strip() != name or not _is_of_this_system(process):
            return None
    except OSError:
        return None
    return int(digits)


def is_run_by_root(pid: int) -> bool:
    """Whether nobody else controls the process, as the caller of a set-user-ID program does."""
    try:
        lines = read_text(f"/proc/{pid}/status").splitlines()
    except OSError:
        return False
    users = next((line.split()[1:] for line in lines if line.startswith("Uid:")), [])
    return set(users) == {"0"}


def _is_of_this_system(process: str) -> bool:
    return os.readlink(f"{process}/ns/pid") == os.readlink("/proc/self/ns/pid")
