"""The frames that carry many connections over one stream of bytes, to the guest and back.

    connection  4 bytes   big-endian, as the others
    kind        2 bytes
    length      2 bytes   of what follows

    DATA    bytes of the connection
    END     nothing more will come in this direction
    RESET   the connection is over in both directions, or was never made; the reason, in UTF-8
    CREDIT  how many more bytes the other side may send, 4 bytes
    OPENED  the connection is made; CREDIT is included
    ECHO    to be returned as it is; connection 0

Who sends DATA needs CREDIT for it, so that one connection that nobody reads holds up none of the
others. The guest reports nothing about a connection before it has CREDIT: then the host knows the
connection's number. RESET of connection 0 ends all. Frames of an unknown connection are ignored:
they were on their way when it ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from qga.records import NamedTuple

DATA, END, RESET, CREDIT, OPENED, ECHO = range(1, 7)

HEAD = Struct("!IHH")
_NUMBER = Struct("!I")

MAX_FRAME = 32 * 1024
"""Bytes of a frame: what a virtio port takes in one write."""

MAX_DATA = MAX_FRAME - HEAD.size

WINDOW = 256 * 1024
"""Bytes of a connection that each side keeps while nobody takes them."""

MAX_CREDIT = 16 * 1024 * 1024
"""Bytes of credit that a side makes use of."""

MAX_REASON = 1024
"""Bytes of a reason."""

_MAX_LENGTH = {END: 0, RESET: MAX_REASON, CREDIT: 4, OPENED: 4, ECHO: 16}


class FrameError(ValueError):
    """The bytes are not frames."""


class Frame(NamedTuple):
    """A frame, or a part of the data of one."""

    connection: int
    kind: int
    data: bytes

    @property
    def credit(self) -> int:
        """The number that it carries. Raises FrameError."""
        if len(self.data) != _NUMBER.size:
            raise FrameError("a frame without a number")
        return min(int(_NUMBER.unpack(self.data)[0]), MAX_CREDIT)

    @property
    def reason(self) -> str:
        return self.data.decode(errors="replace")


def frame(connection: int, kind: int, data: bytes = b"") -> bytes:
    return HEAD.pack(connection, kind, len(data)) + data


def credit_frame(connection: int, kind: int, count: int) -> bytes:
    return frame(connection, kind, _NUMBER.pack(count))


def reset_frame(connection: int, reason: str) -> bytes:
    return frame(connection, RESET, reason.encode(errors="replace")[:MAX_REASON])


class FrameReader:
    """Turns bytes into frames. The data of one is passed on as it comes, other frames whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._connection = 0
        self._left = 0  # bytes of the present DATA frame

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames in these bytes. Raises FrameError."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                yield Frame(self._connection, DATA, piece)
                continue
            body = at + HEAD.size
            if body > len(data):
                break
            connection, kind, length = HEAD.unpack_from(data, at)
            if kind == DATA:
                self._connection, self._left = connection, length
                at = body
                continue
            if length > _MAX_LENGTH.get(kind, -1):
                raise FrameError(f"a frame of an unknown kind or length ({kind}, {length})")
            if body + length > len(data):
                break
            at = body + length
            yield Frame(connection, kind, data[body:at])
        self._rest = data[at:]
