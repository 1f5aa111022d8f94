"""One end of a connection in a tunnel: a local socket, and frames to and from the other side.

What must stay true: end-of-file and reset are passed on as what they are. At most WINDOW bytes are
buffered here, and the socket is not read while the other side accepts nothing. Everything is an
event of the loop.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING, Callable

from qga.tunnels.frames import (
    CREDIT,
    DATA,
    END,
    HEAD,
    MAX_CREDIT,
    MAX_DATA,
    WINDOW,
    Frame,
    FrameError,
    credit_frame,
    frame,
    reset_frame,
)

if TYPE_CHECKING:
    from qga.loop import Loop
    from qga.tunnels.tunnel import Tunnel

_OVER = select.EPOLLHUP | select.EPOLLERR
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER of socket(7): close(2) sends a reset


def abort(connection: socket.socket) -> None:
    """Close a socket so that its peer sees a reset instead of end-of-file."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    connection.close()


class Connection:
    """One end of the connection with this number in a tunnel.

    on_closed: called when the connection is closed.
    """

    def __init__(
        self, number: int, tunnel: Tunnel, loop: Loop, on_closed: Callable[[], None]
    ) -> None:
        self.number = number
        self.is_over = False
        self._tunnel = tunnel
        self._loop = loop
        self._on_closed = on_closed
        self._socket: socket.socket | None = None
        self._credit = 0
        self._owed = 0  # bytes consumed for which no new credit has been sent yet
        self._waiting = bytearray()
        self._has_all = self._has_ended = self._holds = False
        self._events = 0

    def attach(self, connected: socket.socket) -> None:
        """Attach the local socket."""
        connected.setblocking(False)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._write()

    def take(self, given: Frame) -> None:
        """Process a frame of the other side. Raises FrameError if it violates the protocol."""
        if given.kind == DATA:
            self._take_data(given.data)
        elif given.kind == CREDIT:
            self.take_credit(given.credit)
        elif given.kind == END:
            self._has_all = True
            self._write()
        else:
            raise FrameError(f"a frame of the kind {given.kind}")

    def take_credit(self, count: int) -> None:
        """Process credit: permission to send so many more bytes."""
        self._credit = min(self._credit + count, MAX_CREDIT)
        self._watch()

    def on_reset(self, reason: str) -> None:
        """Called when the other side has reset the connection."""

    def on_close(self) -> None:
        """Called when the connection is closed."""

    def resume(self) -> None:
        """Continue to send; the tunnel has room again."""
        self._holds = False
        self._forward()
        self._watch()

    def reset(self, reason: str) -> None:
        """Reset the connection, and send the reason to the other side."""
        self._tunnel.send(reset_frame(self.number, reason))
        self._tunnel.forget(self.number)

    def close(self) -> None:
        """Release everything, and reset the socket unless both directions have ended."""
        if self.is_over:
            return
        self.is_over = True
        self.on_close()
        if self._socket is not None:
            self._unwatch()
            if self._is_complete:
                self._socket.close()
            else:
                abort(self._socket)
        self._on_closed()

    @property
    def _is_complete(self) -> bool:
        return self._has_ended and self._has_all and not self._waiting

    def _forward(self) -> None:
        """Read from the socket and send one frame. The tunnel must have room."""
        if self._socket is None or not self._may_read:
            return
        view = self._tunnel.buffer
        try:
            count = self._socket.recv_into(view[HEAD.size :], min(MAX_DATA, self._credit))
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if count:
            self._credit -= count
            HEAD.pack_into(view, 0, self.number, DATA, count)
            self._tunnel.send(view[: HEAD.size + count])
        else:
            self._has_ended = True
            self._tunnel.send(frame(self.number, END))
        self._close_if_over()

    @property
    def _may_read(self) -> bool:
        return self._credit > 0 and not (self._has_ended or self._holds or self.is_over)

    def _take_data(self, data: bytes | memoryview) -> None:
        if self._has_all or self._socket is None or len(self._waiting) + len(data) > WINDOW:
            raise FrameError("data without credit")
        if self._waiting:
            self._waiting += data
            return
        sent = self._send(self._socket, data)
        if sent < len(data):
            self._waiting += data[sent:]
            self._watch()

    def _send(self, connected: socket.socket, data: bytes | bytearray | memoryview) -> int:
        """Write to the socket; returns how many bytes it has taken, all if it has failed."""
        try:
            count = connected.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return len(data)
        self._owe(count)
        return count

    def _write(self) -> None:
        """Write buffered bytes to the socket, and shut down writing after the last of them."""
        if self._socket is None or self.is_over:
            return
        while self._waiting:
            count = self._send(self._socket, self._waiting)
            if not count:
                break
            del self._waiting[:count]
        if self._has_all and not self._waiting:
            self._shut_down(self._socket)
        self._watch()
        self._close_if_over()

    def _shut_down(self, connected: socket.socket) -> None:
        try:
            connected.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has disconnected in the meantime
            pass

    def _owe(self, count: int) -> None:
        self._owed += count
        if self._owed >= WINDOW // 4 and not self._has_all:
            self._tunnel.send(credit_frame(self.number, CREDIT, self._owed))
            self._owed = 0

    def _on_events(self, events: int) -> None:
        if events & (select.EPOLLOUT | _OVER) and self._waiting:
            self._write()
        if events & (select.EPOLLIN | _OVER) and self._may_read:
            if self._tunnel.has_room:
                self._forward()
            else:
                self._holds = True
                self._tunnel.wait_for_room(self)
        self._watch()

    def _watch(self) -> None:
        """Watch for the events that are useful now. If there are none, do not watch the socket at
        all: epoll(7) reports a hang-up in any case, again and again."""
        if self._socket is None or self.is_over:
            return
        wanted = select.EPOLLIN if self._may_read else 0
        if self._waiting:
            wanted |= select.EPOLLOUT
        if wanted == self._events:
            return
        if not wanted:
            self._unwatch()
        elif self._events:
            self._loop.rewatch(self._socket.fileno(), wanted)
        else:
            self._loop.watch(self._socket.fileno(), self._on_events, wanted)
        self._events = wanted

    def _unwatch(self) -> None:
        if self._events and self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
        self._events = 0

    def _close_if_over(self) -> None:
        if self._is_complete:
            self._tunnel.forget(self.number)

    def _fail(self, error: OSError) -> None:
        self.reset(error.strerror or str(error))
