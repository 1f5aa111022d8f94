"""Data ports over vsock, for guests that have no virtio-serial port to spare.

The host asks for one, connects to the vsock port in the reply, and sends the token in the reply.
Clients with a CID that the channel does not admit, or without the token, are disconnected. After
that it is a data port like any other: commands open and close it, one at a time, until the host
disconnects. Only the channel that asked for it may use it.
"""

from __future__ import annotations

import os
import select
from _operator import _compare_digest as compare_digest  # the module hmac would cost memory
from _socket import AF_VSOCK, SOCK_STREAM, socket
from _thread import allocate_lock
from collections.abc import Container
from typing import TYPE_CHECKING, Callable

from qga import QgaError
from qga.loop import EDGES
from qga.ports import Port, PortFile

if TYPE_CHECKING:
    from qga.loop import Loop

PREFIX = "vsock:"

MAX_PORTS = 16
"""Ports of a channel at the same time."""

PATIENCE = 10.0
"""Seconds for the host to connect and send the token."""

_BACKLOG = 4
_ANY = 2**32 - 1  # VMADDR_CID_ANY and VMADDR_PORT_ANY of vsock(7)
_TOKEN_BYTES = 16

_open: dict[tuple[str, str], VsockPort] = {}
"""By channel and name; global, as virtio-serial ports are."""

_lock = allocate_lock()
"""Protects the above: threads open ports, the loop closes them."""


def open_vsock_port(
    loop: Loop, channel: str, cids: Container[int], on_closed: Callable[[], None]
) -> VsockPort:
    """Listen on a vsock port that is free. Raises QgaError.

    cids: who may connect. on_closed: called when the port is closed.
    """

    def forget() -> None:
        del _open[place]
        on_closed()

    listener = _listen()
    port = VsockPort(listener, cids, forget)
    place = channel, port.name
    with _lock:
        if sum(owner == channel for owner, _ in _open) >= MAX_PORTS:
            listener.close()
            raise QgaError(f"this channel has {MAX_PORTS} vsock ports already; close one of them")
        _open[place] = port
    loop.post(lambda: port.watch(loop))
    return port


def _listen() -> socket:
    try:
        listener = socket(AF_VSOCK, SOCK_STREAM)
        listener.bind((_ANY, _ANY))
        listener.listen(_BACKLOG)
    except OSError as error:
        raise QgaError(f"this guest has no vsock: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def find(channel: str, name: str) -> VsockPort:
    """Raises QgaError if the channel has no such port."""
    try:
        return _open[channel, name]
    except KeyError:
        raise QgaError(f"no port '{name}': open one with qga-open-vsock-port") from None


class VsockPort:
    """A data port over vsock. Only `wait_for_host` and `open` may be called on other threads.

    listener: non-blocking. cids: who may connect. on_closed: called when the port is closed.

    number: of the vsock port. token: what the host sends first, followed by a newline.
    """

    def __init__(
        self, listener: socket, cids: Container[int], on_closed: Callable[[], None]
    ) -> None:
        self.number: int = listener.getsockname()[1]
        self.name = f"{PREFIX}{self.number}"
        self.token = os.urandom(_TOKEN_BYTES).hex()
        self._cids = cids
        self._on_closed = on_closed
        self._listener: socket | None = listener
        self._candidates: list[socket] = []  # clients that have not sent the token yet
        self._link: socket | None = None
        self._user: VsockFile | None = None
        self._settled = allocate_lock()  # held until the host has connected or timed out
        self._settled.acquire()

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        listener = self._listener
        if listener is not None:
            loop.watch(listener.fileno(), lambda _events: self._on_knock(listener))
            self._timer = loop.call_later(PATIENCE, self.close)

    def wait_for_host(self, seconds: float) -> None:
        """Wait until the host has connected."""
        if self._settled.acquire(timeout=seconds):
            self._settled.release()

    def open(self) -> VsockFile:
        """The connection as a file. Raises QgaError if the host is not connected, or if another
        command has it open."""
        with _lock:
            if self._link is None:
                reason = "connect to its vsock port and send the token first"
                raise QgaError(f"the host is not connected to the port '{self.name}': {reason}")
            if self._user is not None and not self._user.closed:
                raise QgaError(f"cannot open port '{self.name}': another command has it open")
            self._user = VsockFile(self.name, os.dup(self._link.fileno()))
            return self._user

    def close(self) -> None:
        """Disconnect the host; a command that has the port open reads end-of-file."""
        with _lock:
            was_open = self._listener is not None or self._link is not None
            self._drop(self._link)
            self._link = None
            self._stop_listening()
        if was_open:
            self._on_closed()

    def _stop_listening(self) -> None:
        for each in (self._listener, *self._candidates):
            self._drop(each)
        self._listener = None
        self._candidates.clear()
        self._settle()

    def _drop(self, end: socket | None) -> None:
        if end is not None:
            self._loop.unwatch(end.fileno())
            end.close()

    def _settle(self) -> None:
        self._timer.cancel()
        if self._settled.locked():
            self._settled.release()

    def _on_knock(self, listener: socket) -> None:
        client, cid = _accepted(listener)
        if client is None:
            return
        if cid not in self._cids:
            client.close()
            return
        if len(self._candidates) >= _BACKLOG:
            self._drop(self._candidates.pop(0))
        self._candidates.append(client)
        self._loop.watch(client.fileno(), lambda _events: self._on_token(client))

    def _on_token(self, client: socket) -> None:
        """Read the token, which arrives in one piece."""
        expected = f"{self.token}\n".encode()
        try:
            told = client.recv(len(expected))
        except OSError:
            told = b""
        self._candidates.remove(client)
        if not compare_digest(told, expected):
            self._drop(client)
            return
        self._loop.unwatch(client.fileno())
        self._link = client
        self._loop.watch(client.fileno(), self._on_event, EDGES)
        self._stop_listening()

    def _on_event(self, events: int) -> None:
        if events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self.close()


def _accepted(listener: socket) -> tuple[socket | None, int]:
    """A client and its CID; None if it has already disconnected."""
    try:
        fd, address = listener._accept()  # type: ignore[attr-defined]
    except OSError:
        return None, 0
    client = socket(listener.family, SOCK_STREAM, fileno=fd)
    client.setblocking(False)
    return client, address[0]


class VsockFile(PortFile):
    """An open vsock port. Closing it does not disconnect the host."""

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(Port(name, ""), fd)

    @property
    def host_connected(self) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLRDHUP)
        return not poll.poll(0)
