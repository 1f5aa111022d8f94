"""Starting a program with posix_spawn(3), where nothing has to be done between fork and exec.

subprocess uses vfork(2) only since Python 3.10, and takes a dozen more system calls. What it does
for the descriptors is done here once: those that the agent was started with, or that a library has
opened, become close-on-exec. All that Python opens are that already.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from signal import SIGPIPE, SIGXFSZ
from typing import Any

_DESCRIPTORS = "/proc/self/fd"
_STANDARD = (0, 1, 2)

_inherits_nothing = False


def can_start(streams: Mapping[int, int]) -> bool:
    """Whether `start` works here, for a program with these descriptors."""
    if not hasattr(os, "posix_spawn") or any(fd in _STANDARD for fd in streams.values()):
        return False
    return _inherits_nothing or _close_all_on_exec()


def start(
    path: bytes, argv: list[bytes], variables: Mapping[bytes, bytes], streams: Mapping[int, int]
) -> int:
    """Start a program in a session of its own; returns its process ID. Raises OSError.

    streams: our descriptors for its 0, 1 and 2; /dev/null for those that are missing.
    """
    return os.posix_spawn(
        path,
        argv,
        variables,
        file_actions=[_action(fd, streams.get(fd)) for fd in _STANDARD],
        setsid=True,
        setsigdef=(SIGPIPE, SIGXFSZ),  # which Python ignores
    )


def _action(fd: int, ours: int | None) -> tuple[Any, ...]:
    """What makes `ours` the descriptor `fd` of the program."""
    if ours is None:
        return os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0
    return os.POSIX_SPAWN_DUP2, ours, fd


def _close_all_on_exec() -> bool:
    global _inherits_nothing  # noqa: PLW0603 - descriptors are global to the process, too
    try:
        descriptors = os.listdir(_DESCRIPTORS)
    except OSError:  # no /proc
        return False
    for fd in map(int, descriptors):
        if fd not in _STANDARD:
            with suppress(OSError):  # that of the directory
                os.set_inheritable(fd, False)
    _inherits_nothing = True
    return True
