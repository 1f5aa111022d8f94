"""Bytes on their way out of a connection.

Replies wait here until the transport takes them. A Payload is encoded slice by slice as it
leaves, so that a reply with n bytes of a file costs n bytes and a slice, and not a base64 text, a
JSON string and a line as well.
"""

from __future__ import annotations

import os

from qga.stdlib import deque
from qga.wire import base64
from qga.wire.payload import Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.wire.payload import Part

WRITE_SIZE = 192 * 1024
"""Bytes of bulk offered to one write(2); a reply without bulk is offered whole.

The buffer of a unix socket holds that many by default; a virtio port takes 32 KiB of them
(drivers/char/virtio_console.c).
"""

TURN_WRITES = 8
"""Writes in a row, some 2 ms with the encoding, before other connections get a turn."""

_TURN = range(TURN_WRITES)
_SLICE = WRITE_SIZE // 4 * 3


class Output:
    """A queue of reply parts. `size` is how many bytes are still to be written."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: deque[Part] = deque()
        self._encoded = 0  # bytes of the first payload that are already encoded
        self._chunk: bytes | bytearray | memoryview = b""  # bytes of the next write

    def append(self, parts: list[Part]) -> None:
        if not self.size and len(parts) == 1 and type(parts[0]) is bytes:  # as nearly always
            self._chunk = parts[0]
            self.size = len(parts[0])
            return
        if self._chunk and type(self._chunk) is bytes:  # it leaves together with what follows
            self._parts.appendleft(self._chunk)
            self._chunk = b""
        for part in parts:
            self.size += len(part)
        self._parts += parts

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    def write_to(self, fd: int) -> None:
        """Write everything, or as much as fits into a turn.

        Raises BlockingIOError if the transport is full, and another OSError if it is gone.
        """
        for _ in _TURN:
            chunk = self._chunk
            if not chunk:
                chunk = self._chunk = self._next_chunk()
            written = os.write(fd, chunk)
            if written == self.size:  # as nearly always
                self.size = 0
                self._chunk = b""
                return
            self.size -= written
            self._chunk = memoryview(chunk)[written:] if written < len(chunk) else b""

    def _next_chunk(self) -> bytes | bytearray:
        """About WRITE_SIZE bytes from the front of the queue, or all there are."""
        pieces: list[bytes | bytearray] = []
        room = WRITE_SIZE
        while self._parts and room > 0:
            piece = self._next_piece()
            room -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _next_piece(self) -> bytes | bytearray:
        part = self._parts[0]
        if not isinstance(part, Payload):
            self._parts.popleft()
            return part
        rest = memoryview(part.data)[self._encoded : self._encoded + _SLICE]
        piece = base64.encode(rest)
        self._encoded += _SLICE
        if self._encoded >= len(part.data):
            self._parts.popleft()
            self._encoded = 0
        return piece
