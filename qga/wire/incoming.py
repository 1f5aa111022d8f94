"""A long string that is base64, decoded while it arrives.

So it is read only once: text that can be decoded has no control characters. In the rare case that
somebody needs the text, it is encoded again.
"""

from __future__ import annotations

from qga.wire import base64
from qga.wire.payload import Base64

_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")

_SHOWN = 1024  # bytes that are encoded for an error


class Incoming:
    """The string that is arriving.

    size: bytes of its text that were decoded so far. They need not be kept.
    wanted: whether anybody will ask for it.
    """

    __slots__ = ("_data", "_rest", "size", "wanted")

    def __init__(self) -> None:
        self.wanted = True
        self.clear()

    def clear(self) -> None:
        self._data = bytearray()
        self._rest = b""  # less than a group of four, or the last group
        self.size = 0

    def take(self, text: bytes, at: int) -> bool:
        """Decode a part of the string, `at` bytes from its beginning.

        Returns False if it is not base64, or does not follow what was decoded.
        """
        if at == 0:
            self.clear()
        if at != self.size or not self.wanted:
            return False
        text, size = self._rest + text, len(text)
        whole = len(text) & ~3
        if whole == len(text) and text.endswith(b"="):
            whole -= 4
        rest = text[whole:]
        if not _LETTERS.issuperset(rest):
            return False
        try:
            self._data += base64.decode_groups(memoryview(text)[:whole])
        except ValueError:
            return False
        self._rest = rest
        self.size += size
        return True

    def beginning(self) -> bytes:
        """What was decoded, at least as much of it as an error shows."""
        return bytes(base64.encode(self._data[:_SHOWN])) + self._rest

    def joined(self, rest: str) -> Base64:
        """The string, of which `rest` was not decoded. Begins a new one."""
        whole = Base64(self._rest.decode("ascii") + rest, self._data)
        self.clear()
        return whole
