"""The guest's end of a tunnel: over a data port, or in pieces that the host fetches.

What must stay true: all connections are closed when the host disconnects from the port, or stops
fetching. While much data is waiting for the host, no data is accepted from it.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Callable

from qga.loop import EDGES
from qga.tunnels.connection import Connection
from qga.tunnels.frames import (
    ECHO,
    OPENED,
    WINDOW,
    credit_frame,
    frame,
)
from qga.tunnels.tunnel import Tunnel

if TYPE_CHECKING:
    import socket

    from qga.loop import Loop
    from qga.ports import PortFile

MAX_UNSENT = 256 * 1024
"""Bytes waiting for the host beyond which nothing is accepted from it."""

IDLE = 60.0
"""Seconds without a request for pieces after which the host counts as disconnected."""

_READ_SIZE = 64 * 1024
_TURN = 4  # times _READ_SIZE from a port before other connections get a turn


class ServiceConnection(Connection):
    """A connection to a service in the guest.

    cancel: stops connecting.
    """

    def __init__(
        self, number: int, tunnel: Tunnel, loop: Loop, on_closed: Callable[[], None]
    ) -> None:
        super().__init__(number, tunnel, loop, on_closed)
        self.cancel: Callable[[], None] = lambda: None
        self._failure = ""
        self._is_known = False  # whether the host knows its number

    def on_done(self, connected: socket.socket | None, reason: str) -> None:
        """Called when it is connected, or connecting has failed."""
        if connected is None:
            self._failure = reason
        elif self.is_over:
            connected.close()
        else:
            self.attach(connected)
        if self._is_known:
            self._introduce()

    def on_close(self) -> None:
        self.cancel()

    def take_credit(self, count: int) -> None:
        super().take_credit(count)
        if not self._is_known:
            self._is_known = True
            self._introduce()

    def _introduce(self) -> None:
        """Report the outcome to the host, which knows the number now."""
        if self._failure:
            self.reset(self._failure)
        elif self._socket is not None:
            self._tunnel.send(credit_frame(self.number, OPENED, WINDOW))


class ServiceTunnel(Tunnel):
    """The guest's end of a tunnel. It returns ECHO, with which the host checks that it is alive."""

    def on_echo(self, data: bytes) -> None:
        self.send(frame(0, ECHO, data))


class PortTunnel(ServiceTunnel):
    """A tunnel over a data port."""

    def __init__(self, port: PortFile, loop: Loop, on_closed: Callable[[], None]) -> None:
        super().__init__(loop, on_closed)
        self._port = port
        self._readable = True
        self._incoming = memoryview(bytearray(_READ_SIZE))

    @property
    def has_room(self) -> bool:
        return not self._unsent

    def start(self) -> None:
        self._loop.watch(self._port.fileno(), self._on_events, EDGES)

    def do_write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._port.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:  # unplugged
            self._loop.post(self.close)
            return len(data)

    def do_close(self) -> None:
        self._loop.unwatch(self._port.fileno())
        self._port.close()

    def _on_events(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()
            return
        self._readable = True
        self._flush()
        self._let_go()
        self._take()

    def _take(self) -> None:
        for _ in range(_TURN):
            if self.closed or not self._readable or len(self._unsent) > MAX_UNSENT:
                return
            self.receive(self._read())
        self._loop.post(self._take)

    def _read(self) -> memoryview:
        """Read from the port, which returns at most 4096 bytes at once."""
        filled = 0
        while filled < _READ_SIZE:
            try:
                count = os.readv(self._port.fileno(), [self._incoming[filled:]])
            except BlockingIOError:
                self._readable = False
                break
            except OSError:  # unplugged
                count = 0
            if not count:
                self._readable = False
                self._loop.post(self.close)
                break
            filled += count
        return self._incoming[:filled]


class PieceTunnel(ServiceTunnel):
    """A tunnel in pieces that the host sends and fetches."""

    def __init__(self, loop: Loop, on_closed: Callable[[], None]) -> None:
        super().__init__(loop, on_closed)
        self._asked = time.monotonic()

    @property
    def has_room(self) -> bool:
        return len(self._unsent) < MAX_UNSENT

    def start(self) -> None:
        self._timer = self._loop.call_later(IDLE, self._look)

    def do_write(self, data: bytes | memoryview) -> int:
        """Buffer the data until the host fetches it."""
        return 0

    def do_close(self) -> None:
        self._timer.cancel()

    def exchange(self, data: bytes) -> bytes:
        """Accept data of the host; returns the data that is waiting for it."""
        self._asked = time.monotonic()
        self.receive(data)
        waiting = bytes(self._unsent)
        self._unsent.clear()
        self._let_go()
        return waiting

    def _look(self) -> None:
        rest = self._asked + IDLE - time.monotonic()
        if rest <= 0:
            self.close()
        else:
            self._timer = self._loop.call_later(rest, self._look)
