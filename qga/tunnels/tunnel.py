"""One end of a tunnel: numbered connections over one stream of frames.

What must stay true: all connections are closed when the stream ends, and no socket is read while
the other side accepts nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable

from qga.tunnels.frames import (
    ECHO,
    MAX_FRAME,
    RESET,
    FrameError,
    FrameReader,
    reset_frame,
)

if TYPE_CHECKING:
    from qga.loop import Loop
    from qga.tunnels.connection import Connection


class Tunnel:
    """Subclasses add the transport of the frames. Everything happens on the loop.

    on_closed: called when the tunnel is closed.
    """

    def __init__(self, loop: Loop, on_closed: Callable[[], None]) -> None:
        self.buffer = memoryview(bytearray(MAX_FRAME))
        """Room for a frame that a connection makes, shared because it is sent immediately."""
        self.closed = False
        self.connections: dict[int, Connection] = {}
        self._loop = loop
        self._on_closed = on_closed
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._held: deque[Connection] = deque()

    @property
    def has_room(self) -> bool:
        """Whether connections may send data."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to receive from the other side."""
        raise NotImplementedError

    def do_write(self, data: bytes | memoryview) -> int:
        """Send bytes to the other side; returns how many were accepted."""
        raise NotImplementedError

    def do_close(self) -> None:
        """Release the transport."""
        raise NotImplementedError

    def on_echo(self, data: bytes) -> None:
        """Called when an ECHO has arrived."""

    def on_reset(self, reason: str) -> None:
        """Called when the other side has closed the tunnel or violated the protocol."""

    def add(self, connection: Connection) -> None:
        if self.closed:
            connection.close()
        else:
            self.connections[connection.number] = connection

    def forget(self, number: int) -> None:
        """Close a connection."""
        connection = self.connections.pop(number, None)
        if connection is not None:
            connection.close()

    def send(self, data: bytes | memoryview) -> None:
        """Send a frame, or buffer it until the other side accepts it."""
        if not self.closed:
            taken = 0 if self._unsent else self.do_write(data)
            self._unsent += data[taken:]

    def wait_for_room(self, connection: Connection) -> None:
        self._held.append(connection)

    def receive(self, data: bytes | memoryview) -> None:
        """Process bytes of the other side. The tunnel is closed if they are not valid frames."""
        try:
            for given in self._reader.feed(data):
                if given.kind == ECHO:
                    self.on_echo(bytes(given.data))
                elif given.kind == RESET:
                    self._on_reset(given.connection, given.reason)
                elif given.connection in self.connections:
                    self.connections[given.connection].take(given)
        except FrameError as error:
            self.on_reset(f"the other side has sent {error}")
            self.close(f"the other side has sent {error}")

    def close(self, reason: str = "") -> None:
        """Close all connections, and send the reason to the other side if there is one."""
        if self.closed:
            return
        if reason:
            self.send(reset_frame(0, reason))
        self.closed = True
        for number in list(self.connections):
            self.forget(number)
        self._held.clear()
        self._unsent.clear()
        self.do_close()
        self._on_closed()

    def _flush(self) -> None:
        """Send buffered frames as far as the other side accepts them."""
        while self._unsent:
            count = self.do_write(bytes(self._unsent[:MAX_FRAME]))
            if not count:
                return
            del self._unsent[:count]

    def _on_reset(self, number: int, reason: str) -> None:
        if number == 0:
            self.on_reset(reason)
            self.close()
        elif number in self.connections:
            self.connections[number].on_reset(reason)
            self.forget(number)

    def _let_go(self) -> None:
        """Let waiting connections continue to send, as long as there is room."""
        while self._held and self.has_room:
            self._held.popleft().resume()
