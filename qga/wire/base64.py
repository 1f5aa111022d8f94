"""Base64 of bulk, by the fastest codec there is.

In nanoseconds a byte pybase64 (libbase64, SIMD) takes 0.02 to 0.1. Without it glibc encodes at 0.5
and binascii at 0.75, and binascii decodes at 0.8. They are looked for at the first bulk: an agent
that moves no files starts without them.
"""

from __future__ import annotations

import binascii

from qga.wire import b64_ntop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from qga.wire.b64_ntop import Buffer, Encode

BULK = 4096
"""Bytes from which pybase64 is worth its import (1 ms, 0.15 MB)."""


def _encode(data: Buffer) -> bytes:
    return binascii.b2a_base64(data, newline=False)


class _Codec:
    """What was found at the first bulk: pybase64, if it is installed, and the fastest encoder."""

    looked = False
    module: ModuleType | None = None
    encode: Encode = _encode


def encode(data: Buffer) -> bytes | bytearray:
    """Base64 of `data`, without line ends."""
    if len(data) < BULK:
        return _encode(data)
    prepare()
    return _Codec.encode(data)


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


def decode_groups(text: memoryview) -> bytes:
    """The bytes that groups of four letters encode. Raises ValueError for any other text."""
    simd = _simd() if len(text) >= BULK else None
    data: bytes = simd.b64decode(text, validate=True) if simd else binascii.a2b_base64(text)
    if len(data) * 4 != len(text) * 3:  # padding, or something that binascii has skipped
        raise ValueError("not base64, or padded")
    return data


def prepare() -> None:
    """Look for the fastest codec now instead of at the first bulk, which may come in a freeze."""
    if not _Codec.looked:
        _look()


def _simd() -> ModuleType | None:
    prepare()
    return _Codec.module


def _look() -> None:
    simd = _load()
    _Codec.module = simd
    _Codec.encode = simd.b64encode if simd else b64_ntop.load() or _encode
    _Codec.looked = True


def _load() -> ModuleType | None:
    try:
        import pybase64
    except ImportError:
        return None
    # Without its C extension it is binascii behind a regular expression.
    return pybase64 if "C extension active" in pybase64.get_version() else None
