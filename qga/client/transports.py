"""The ways to an agent, each under the name that an address begins with.

A transport carries one request at a time and returns the line that answers *it*: getting back
into step after a timeout is its business, because only it knows how. Over a stream of bytes
that is `SocketTransport`'s conversation with `guest-sync-delimited`; a way that pairs requests
with replies by itself (libvirt's) has nothing to do there.

A transport raises TimeoutError when the deadline (of `time.monotonic()`) passes, OSError when
the connection is lost, and ProtocolError for bytes that are no reply. After any of these, or a
KeyboardInterrupt, it may be used again.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from qga.client.errors import ConnectError
from qga.client.wire import PING, Reader, ReplyReader, SyncSearch

# As much as a unix socket holds by default (net.core.wmem_default), and then some.
RECEIVE_SIZE = 256 * 1024

# poll(2) takes milliseconds as an int; longer waits come in pieces.
LONGEST_POLL = 3600.0


class Transport(Protocol):
    """One way to one agent."""

    def synchronize(self, deadline: float) -> None:
        """Make sure that the agent answers, and that the next reply is to the next request."""

    def exchange(self, request: bytes, deadline: float) -> bytes:
        """Send a request; return the reply's line without its newline."""

    def order(self, request: bytes, deadline: float) -> bytes | None:
        """Send a request of which success is not answered; the line of its reply, or None.

        None when the agent has accepted it, as far as can be told by the deadline; a guest
        that goes down does not tell. TimeoutError only when it was not even sent.
        """

    def mistrust(self) -> None:
        """The last reply made no sense: synchronize before the next request."""

    def close(self) -> None: ...


class SocketTransport:
    """A conversation over a connected stream socket."""

    def __init__(self, sock: socket.socket, max_reply: int) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._max_reply = max_reply
        self._poll = select.poll()
        self._in_step = False

    def synchronize(self, deadline: float) -> None:
        search = SyncSearch()
        try:
            self._converse(search.request, search, deadline)
        except TimeoutError:
            raise TimeoutError(
                "not even guest-sync-delimited was answered: is the agent running in the guest, "
                "and is no other client connected to this socket?"
            ) from None

    def exchange(self, request: bytes, deadline: float) -> bytes:
        if not self._in_step:
            self.synchronize(deadline)
        return self._converse(request, ReplyReader(self._max_reply), deadline)

    def order(self, request: bytes, deadline: float) -> bytes | None:
        """With a guest-ping behind it: requests are carried out one after the other."""
        self.synchronize(deadline)
        try:
            return self._converse(request + PING, ReplyReader(self._max_reply), deadline)
        except TimeoutError:
            return None
        finally:
            self._in_step = False

    def mistrust(self) -> None:
        self._in_step = False

    def close(self) -> None:
        self._socket.close()

    def _converse(self, request: bytes, reader: Reader, deadline: float) -> bytes:
        """Send and receive at once: an agent busy sending an old reply reads nothing."""
        self._in_step = False  # until the answer is here, whatever ends this loop
        unsent = memoryview(request)
        reply = None
        while reply is None:
            unsent = unsent[self._send(unsent) :]
            if self._readable(bool(unsent), deadline):
                reply = reader.feed(self._receive())
        self._in_step = not unsent and not reader.surplus
        return reply

    def _readable(self, sending: bool, deadline: float) -> bool:
        """Wait until something can be read, or sent if we are `sending`."""
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if sending else 0))
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("no answer")
            for _, events in self._poll.poll(min(remaining, LONGEST_POLL) * 1000):
                return bool(events & ~select.POLLOUT)

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL) if data else 0
        except BlockingIOError:
            return 0

    def _receive(self) -> bytes:
        data = self._socket.recv(RECEIVE_SIZE)
        if not data:
            raise ConnectionError("the connection was closed at the other end")
        return data


def transport_opener(address: str, max_reply: int) -> Callable[[], Transport]:
    """What opens the transport to `address`; ValueError if it is not an address."""
    scheme, _, place = address.partition(":")
    if scheme not in OPENERS or not place:
        known = ", ".join(f"{name}:{form}" for name, (form, _) in OPENERS.items())
        raise ValueError(f"'{address}' is not the address of an agent, expected: {known}")
    return partial(OPENERS[scheme][1], place, max_reply)


def open_unix(path: str, max_reply: int) -> Transport:
    """Connect to a unix socket: QEMU's chardev of the channel, or an agent that listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise ConnectError(f"unix:{path}", connect_failure(error)) from None
    return SocketTransport(sock, max_reply)


def connect_failure(error: OSError) -> str:
    """The system's words, and what to try."""
    text = os.strerror(error.errno) if error.errno else str(error)
    advice = CONNECT_ADVICE.get(error.errno or 0)
    return f"{text}: {advice}" if advice else text


CONNECT_ADVICE = {
    errno.ENOENT: (
        "is the guest running, and does it have a channel org.qemu.guest_agent.0 at this path?"
    ),
    errno.EACCES: "run this as root, or as the user who owns the socket and its folders",
    errno.ECONNREFUSED: (
        "nobody listens there: start the guest (or the agent, if it is the one to listen)"
    ),
    errno.EAGAIN: "too many clients wait there already: close the one that is being served",
}

# For each scheme, the form of what follows the colon, and what opens it.
OPENERS: dict[str, tuple[str, Callable[[str, int], Transport]]] = {"unix": ("PATH", open_unix)}
