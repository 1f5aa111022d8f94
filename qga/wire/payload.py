"""Binary data inside JSON: base64 in and out, and strings for the operating system.

Out: a handler puts a `Payload` where the interface has a base64 string, as a member of its
result; the bytes are encoded in slices while they leave (qga.serving.output), never as a whole.
In: `decode_base64` accepts what QEMU's decoder accepts and is as lenient with the rest. A `Base64`
was decoded while it arrived.
"""

from __future__ import annotations

import binascii

from qga.errors import QgaError
from qga.wire import base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Part = Union[bytes, "Payload"]
    """A piece of a reply."""

MAX_MESSAGE = 64 * 1024 * 1024 - 1
"""Bytes of all tokens of one message, white space not counted (QEMU's limit)."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n"


class Payload:
    """Bytes that the reply carries base64-encoded."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray) -> None:
        if not isinstance(data, (bytes, bytearray)):  # said here, where it is the handler's fault
            raise TypeError(f"a Payload is made of bytes, not of {type(data).__name__}")
        self.data = data

    def __len__(self) -> int:
        """Bytes of the base64 text."""
        return -(-len(self.data) // 3) * 4


class Base64:
    """An argument that is base64. `str` has its text, and `decode` the bytes.

    text: its end, or all of it.
    head: the bytes that the text before that encodes, in groups of four letters.
    """

    __slots__ = ("_data", "_head", "_text")

    def __init__(self, text: str, head: bytearray | None = None) -> None:
        self._text = text
        self._data = head if head is not None else bytearray()
        self._head = len(self._data)

    def __bool__(self) -> bool:
        return bool(self._head or self._text)

    def decode(self) -> bytes | bytearray:
        """The bytes. Raises QgaError as `decode_base64` does."""
        if not self._head:
            return decode_base64(self._text)
        if len(self._data) == self._head:
            self._data += decode_base64(self._text)
        return self._data

    def beginning(self, length: int) -> str:
        """That many characters of the text, or all."""
        with memoryview(self._data) as data:
            text = base64.encode(data[: min(self._head, -(-length // 4) * 3)]).decode("ascii")
        return text[:length] if len(text) >= length else (text + self._text)[:length]

    def __str__(self) -> str:
        with memoryview(self._data) as data:
            return base64.encode(data[: self._head]).decode("ascii") + self._text

    def __repr__(self) -> str:
        return repr(str(self))

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, (str, Base64)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def c_string(text: str) -> bytes:
    """`text` for a system call, which cannot take a NUL: it becomes C0 80, as in QEMU's agent."""
    return text.encode().replace(b"\0", b"\xc0\x80")


def decode_base64(text: str) -> bytes:
    """The bytes that `text` encodes.

    Raises QgaError for characters other than the alphabet's, `=` and newline. As in the
    original an incomplete last group is dropped, data may follow padding, and a `=` elsewhere
    counts as zero bits.
    """
    try:
        return base64.decode(text)
    except ValueError:
        return _decode_leniently(text)


def _decode_leniently(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    if raw.translate(None, _ALPHABET):
        raise QgaError("Base64 data contains invalid characters")
    symbols = raw.replace(b"\n", b"")
    groups = (symbols[at : at + 4] for at in range(0, len(symbols) - len(symbols) % 4, 4))
    return b"".join(map(_decode_group, groups))


def _decode_group(group: bytes) -> bytes:
    """Three bytes; a `=` as the third or the fourth symbol leaves out the byte that it ends."""
    first, second, third = binascii.a2b_base64(group.replace(b"=", b"A"))
    ended = [first]
    if group[2:3] != b"=":
        ended.append(second)
    if group[3:4] != b"=":
        ended.append(third)
    return bytes(ended)
