"""The frames that carry many connections over one byte stream between guest and host.

Each frame has a header, in network byte order:

    connection  4 bytes
    kind        2 bytes
    length      2 bytes   of the payload that follows

The kinds of frames and their payloads:

    DATA    bytes of the connection
    END     no payload: end-of-file in this direction
    RESET   the reason in UTF-8: the connection is closed, or could not be established
    CREDIT  4 bytes: how many more bytes the other side may send
    OPENED  4 bytes: the connection is established; includes the first CREDIT
    ECHO    any bytes: to be sent back unchanged; connection 0

Sending DATA uses up CREDIT, so a connection whose reader is slow does not block the others. The
guest sends nothing about a connection before it has received CREDIT for it, which tells it that the
host knows the connection's number. RESET of connection 0 closes the tunnel. Frames of unknown
connections are ignored: they may have been in flight when the connection was closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from qga.records import NamedTuple

DATA, END, RESET, CREDIT, OPENED, ECHO = range(1, 7)

HEAD = Struct("!IHH")
_NUMBER = Struct("!I")

MAX_FRAME = 32 * 1024
"""Bytes of a frame: the most that a virtio port takes in one write."""

MAX_DATA = MAX_FRAME - HEAD.size

WINDOW = 256 * 1024
"""Bytes of a connection that each side buffers."""

MAX_CREDIT = 16 * 1024 * 1024
"""Bytes of credit; more is ignored."""

MAX_REASON = 1024
"""Bytes of the reason of a RESET."""

_MAX_LENGTH = {END: 0, RESET: MAX_REASON, CREDIT: 4, OPENED: 4, ECHO: 16}


class FrameError(ValueError):
    """The other side has sent something that violates the protocol."""


class Frame(NamedTuple):
    """A frame, or a part of a DATA frame, whose data are valid until the next bytes are parsed."""

    connection: int
    kind: int
    data: bytes | memoryview

    @property
    def credit(self) -> int:
        """The number in the payload of CREDIT or OPENED. Raises FrameError."""
        if len(self.data) != _NUMBER.size:
            raise FrameError("a frame without a number")
        return min(int(_NUMBER.unpack(self.data)[0]), MAX_CREDIT)

    @property
    def reason(self) -> str:
        return bytes(self.data).decode(errors="replace")


def frame(connection: int, kind: int, data: bytes = b"") -> bytes:
    return HEAD.pack(connection, kind, len(data)) + data


def credit_frame(connection: int, kind: int, count: int) -> bytes:
    return frame(connection, kind, _NUMBER.pack(count))


def reset_frame(connection: int, reason: str) -> bytes:
    return frame(connection, RESET, reason.encode(errors="replace")[:MAX_REASON])


class FrameReader:
    """Parses frames. DATA is passed on piece by piece as it arrives, other frames as a whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._connection = 0
        self._left = 0  # bytes missing from the current DATA frame

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Parse the next bytes. Raises FrameError."""
        view = memoryview(self._rest + data if self._rest else data)
        size, at = len(view), 0
        self._rest = b""
        while at < size:
            if self._left:
                piece = view[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                yield Frame(self._connection, DATA, piece)
                continue
            body = at + HEAD.size
            if body > size:
                break
            connection, kind, length = HEAD.unpack_from(view, at)
            if kind == DATA:
                self._connection, self._left = connection, length
                at = body
                continue
            if length > _MAX_LENGTH.get(kind, -1):
                raise FrameError(f"a frame of an unknown kind or length ({kind}, {length})")
            if body + length > size:
                break
            at = body + length
            yield Frame(connection, kind, bytes(view[body:at]))
        self._rest = bytes(view[at:])
