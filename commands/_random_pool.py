"""Adds entropy of the host to the kernel's random pool.

Guests that continue from one snapshot have equal pools: until the kernel mixes in something new,
which may take a minute, both draw the same keys and IDs.
"""

from __future__ import annotations

import os
import struct

from qga import QgaError, decode_base64
from qga.wording import counted

from ._ioctl import ioctl_number
from ._steps import NotApplicable

MIN_ENTROPY = 16
"""Bytes: less than 128 bits could be guessed."""

MAX_ENTROPY = 512
"""Bytes. The kernel keeps 256 bits."""

_POOL = "/dev/urandom"
# <linux/random.h>
_RND_INFO = struct.Struct("2i")  # struct rand_pool_info without its bytes: bits, bytes
_RNDADDENTROPY = ioctl_number("write", "R", 3, _RND_INFO.size)
_RNDRESEEDCRNG = ioctl_number("none", "R", 7, 0)


def decode_entropy(given: str | None) -> bytes | None:
    """The bytes of an argument. Raises QgaError."""
    if given is None:
        return None
    entropy = decode_base64(given)
    if not MIN_ENTROPY <= len(entropy) <= MAX_ENTROPY:
        raise QgaError(
            f"entropy has {counted(len(entropy), 'byte')}; give at least {MIN_ENTROPY} and at most "
            f"{MAX_ENTROPY}"
        )
    return entropy


def add(entropy: bytes | None) -> str:
    """Add entropy and have the kernel's generator use it at once; returns what was done."""
    from fcntl import ioctl

    if entropy is None:
        raise NotApplicable("the request has no entropy")
    bits = len(entropy) * 8
    fd = os.open(_POOL, os.O_RDONLY)
    try:
        ioctl(fd, _RNDADDENTROPY, _RND_INFO.pack(bits, len(entropy)) + entropy)
        # Without this, the old key is used for up to a minute.
        ioctl(fd, _RNDRESEEDCRNG)
    except OSError as error:
        raise QgaError(f"the kernel refused the entropy: {error.strerror}") from error
    finally:
        os.close(fd)
    return f"the random pool got {counted(bits, 'bit')}, and the generator was reseeded"
