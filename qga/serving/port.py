"""What a virtio port does otherwise than a socket (drivers/char/virtio_console.c).

It outlives its clients, gives one buffer at a time, and tells of clients that come and leave later
than of what they send.
"""

from __future__ import annotations

import os
from select import POLLHUP, POLLIN, poll

BUFFER = os.sysconf("SC_PAGE_SIZE")
"""Bytes that a port gives at most in one read."""


def read_on(fd: int, data: bytes, most: int) -> bytes:
    """`data`, which was a full buffer, and what follows it: a long request comes in a few hundred.

    At most some `most` bytes.
    """
    pieces, size = [data], len(data)
    try:
        while len(pieces[-1]) == BUFFER and size < most:
            pieces.append(os.read(fd, most - size))
            size += len(pieces[-1])
    except OSError:  # empty, or gone: the next read fails in the same way
        pass
    return b"".join(pieces)


def client_has_left(fd: int) -> bool:
    """Whether it has left, also before an event has reported it."""
    return bool(_state(fd) & POLLHUP)


def client_sends(fd: int) -> bool:
    """Whether a client is there, and has sent something that was not read yet."""
    return _state(fd) & (POLLHUP | POLLIN) == POLLIN


def _state(fd: int) -> int:
    look = poll()
    look.register(fd, POLLIN)
    return sum(events for _, events in look.poll(0))
