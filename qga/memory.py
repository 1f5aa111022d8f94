"""How much freed memory malloc(3) keeps for what comes next.

While something large passes it keeps nearly everything: whatever it gave back after one request
would be faulted in again by the next, at a quarter of the time of a read of 8 MiB. Once nothing
large has passed for a moment, everything free goes back to the system.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

    from qga.loop import Loop

SILENCE = 0.06
"""Seconds without anything large after which memory is given back."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>

_KEPT, _KEPT_WHILE_BUSY = 4 << 20, 64 << 20

_SETTINGS = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, _KEPT))
"""Settings of glibc's malloc(3).

Each arena keeps for good the most memory that was ever in use in it: tens of megabytes in all. By
thresholds of its own choice malloc gives the buffers of a write of 1 MiB back after each, and keeps
20 MB after writes of 8 MiB.
"""


class Memory:
    """Keeps memory while something large passes, and gives it back afterwards."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._busy = False
        self._last_used = 0.0

    def use(self) -> None:
        """Note that something large passes. Call it on the loop."""
        self._last_used = time.monotonic()
        if not self._busy:
            self._busy = True
            _set(_M_TRIM_THRESHOLD, _KEPT_WHILE_BUSY)
            self._loop.call_later(SILENCE, self._look)

    def _look(self) -> None:
        rest = self._last_used + SILENCE - time.monotonic()
        if rest > 0:
            self._loop.call_later(rest, self._look)
            return
        self._busy = False
        _set(_M_TRIM_THRESHOLD, _KEPT)
        _give_back()


def tune() -> None:
    """Choose malloc's settings. Call it before the first thread starts."""
    for setting in _SETTINGS:
        _set(*setting)


def _set(what: int, value: int) -> None:
    libc = _glibc()
    if libc is not None:
        libc.mallopt(what, value)


def _give_back() -> None:
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> CDLL | None:
    try:
        from ctypes import CDLL

        libc = CDLL(None)
        return libc if hasattr(libc, "mallopt") else None
    except (ImportError, OSError):
        return None
