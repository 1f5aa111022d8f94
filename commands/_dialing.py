"""Connecting to services in the guest without blocking the loop."""

from __future__ import annotations

import os
import select
import socket
import time
from errno import EINPROGRESS
from typing import TYPE_CHECKING, Callable, Optional

from qga import QgaError, stop_if_given_up

if TYPE_CHECKING:
    from qga.loop import Loop, Timer
    from qga.policy.connect_rules import Address

_PAUSE = 0.02  # seconds between attempts to connect to a socket whose backlog is full

Done = Callable[[Optional[socket.socket], str], None]
"""Called with the connected socket, or with None and the reason."""


def connect_unix(fd: int, path: str, timeout: float) -> socket.socket:
    """Connect to the socket of an O_PATH descriptor, which is closed. Raises QgaError.

    path: for messages. timeout: seconds to wait for a service whose backlog is full.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    deadline = time.monotonic() + timeout
    try:
        while True:
            try:
                connection.connect(f"/proc/self/fd/{fd}")
                return connection
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(0, f"no answer within {timeout:g} s") from None
                stop_if_given_up()
                time.sleep(_PAUSE)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise QgaError(f"cannot connect to 'unix:{path}': {error.strerror}") from None
        raise
    finally:
        os.close(fd)


class Dialer:
    """Connects to the first of some addresses that answers.

    timeout: seconds for all of them.
    """

    def __init__(self, loop: Loop, addresses: list[Address], timeout: float, on_done: Done) -> None:
        self._loop = loop
        self._addresses = iter(addresses)
        self._timeout = timeout
        self._on_done: Done | None = on_done
        self._socket: socket.socket | None = None
        self._timer: Timer = loop.call_later(timeout, self._on_time)
        self._try_next("no address")

    def cancel(self) -> None:
        """Stop, and report nothing."""
        self._on_done = None
        self._finish(None, "")

    def _try_next(self, reason: str) -> None:
        for family, place in self._addresses:
            try:
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                self._socket.setblocking(False)
                code = self._socket.connect_ex(place)
            except OSError as error:  # such as no IPv6, or no descriptors left
                code = error.errno or 0
            if code == EINPROGRESS and self._socket is not None:
                self._loop.watch(self._socket.fileno(), self._on_events, select.EPOLLOUT)
                return
            if code == 0:
                self._finish(self._socket, "")
                return
            reason = os.strerror(code)
            self._drop()
        self._finish(None, reason)

    def _on_events(self, _events: int) -> None:
        tried = self._socket
        if tried is None:
            return
        self._loop.unwatch(tried.fileno())
        code = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            self._finish(tried, "")
            return
        self._drop()
        self._try_next(os.strerror(code))

    def _on_time(self) -> None:
        self._finish(None, f"no answer within {self._timeout:g} s")

    def _drop(self) -> None:
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _finish(self, connected: socket.socket | None, reason: str) -> None:
        self._timer.cancel()
        if connected is None:
            self._drop()
        self._socket = None
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(connected, reason)
