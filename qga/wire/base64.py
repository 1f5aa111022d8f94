"""Base64 of bulk, by SIMD instructions where pybase64 is installed and by binascii where it is not.

pybase64 (libbase64) takes 0.02 to 0.1 ns a byte, binascii 1 to 2.5. It is loaded at the first
bulk: an agent that moves no files starts without it.
"""

from __future__ import annotations

import binascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Union

    _Buffer = Union[bytes, bytearray, memoryview]

BULK = 4096
"""Bytes from which pybase64 is worth its import (1 ms, 0.15 MB)."""


class _Codec:
    """pybase64, imported at the first call; None if it is not installed."""

    looked = False
    module: ModuleType | None = None


def encode(data: _Buffer) -> bytes:
    """Base64 of `data`, without line ends."""
    simd = _simd() if len(data) >= BULK else None
    if simd is not None:
        return simd.b64encode(data)  # type: ignore[no-any-return]
    return binascii.b2a_base64(data, newline=False)


def decode(text: str) -> bytes:
    """The bytes that `text` encodes. Line ends are skipped.

    Raises ValueError for other characters, and for padding that is incomplete or not at the end.
    """
    simd = _simd() if len(text) >= BULK else None
    if simd is not None:
        try:
            return simd.b64decode(text, validate=True)  # type: ignore[no-any-return]
        except ValueError:  # line ends, perhaps
            pass
    data = binascii.a2b_base64(text)
    # binascii skips what it does not know: it has read everything when the lengths agree.
    end = text[-4:].rstrip("\n")
    padding = 0 if not end.endswith("=") else 2 if end.endswith("==") else 1
    line_ends = text.count("\n") if "\n" in text else 0
    if (len(text) - line_ends) * 3 != (len(data) + padding) * 4:
        raise ValueError("not base64")
    return data


def length_of_base64(text: bytes) -> int:
    """How many bytes at the beginning of `text` are base64, by a quick check: all, none, or whole
    groups of four. They contain no control characters and no quotes."""
    simd = _simd() if len(text) >= BULK else None
    if simd is None:
        return 0
    length = len(text) & ~3
    try:
        simd.b64decode(memoryview(text)[:length], validate=True)
    except ValueError:
        return 0
    return length


def _simd() -> ModuleType | None:
    if not _Codec.looked:
        _Codec.module = _load()
        _Codec.looked = True
    return _Codec.module


def _load() -> ModuleType | None:
    try:
        import pybase64
    except ImportError:
        return None
    # Without its C extension it is binascii behind a regular expression.
    return pybase64 if "C extension active" in pybase64.get_version() else None
