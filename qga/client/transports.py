"""How requests and replies are transferred, and the transport over a socket.

A transport carries one request at a time and returns the reply to *it*: each request gets an
id, and after any doubt (a timeout, a reply too many, one that makes no sense) the transport
gets back into step before the next one, in a way that only it knows.

A transport raises TimeoutError when the deadline (of `time.monotonic()`) passes, OSError when
the connection is lost, and ProtocolError for bytes that are no reply. After any of these, or a
KeyboardInterrupt, it may be used again.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from qga.client.wire import (
    MAX_REQUEST,
    PING,
    IdRefused,
    Reader,
    Reply,
    ReplyReader,
    SyncSearch,
    new_id,
    tagged,
)

# As much as a unix socket holds by default (net.core.wmem_default), and then some.
RECEIVE_SIZE = 256 * 1024

# poll(2) takes milliseconds as an int; longer waits come in pieces.
LONGEST_POLL = 3600.0


CLOSED = "the connection was closed at the other end"
NO_AGENT = "is the agent running in the guest (systemctl start qemu-guest-agent)?"


class Transport(Protocol):
    """One way to one agent.

    `max_request`: bytes of a request that it carries. `max_output`: bytes that one member of a
    reply may carry as base64; None where that is as much as any command returns.
    """

    @property
    def max_request(self) -> int: ...

    @property
    def max_output(self) -> int | None: ...

    def synchronize(self, deadline: float) -> None:
        """Make sure that the agent answers, and that the next reply is to the next request."""

    def exchange(self, request: bytes, limit: int, deadline: float) -> Reply:
        """Send a request; return the reply, of at most `limit` bytes."""

    def order(self, request: bytes, limit: int, deadline: float) -> Reply | None:
        """Send a request of which success is not answered; its reply, or None.

        None when the agent has accepted it, as far as is known by the deadline; a guest
        that shuts down does not answer. TimeoutError only when it was not even sent.
        """

    def mistrust(self) -> None:
        """The last reply was invalid: synchronize before the next request."""

    def close(self) -> None: ...


class SocketTransport:
    """A conversation over a connected stream socket.

    `explain_silence` says what to try when nothing answers; asked at that very moment.
    """

    max_request = MAX_REQUEST
    max_output = None

    def __init__(
        self,
        sock: socket.socket,
        max_reply: int,
        explain_silence: Callable[[], str] = lambda: NO_AGENT,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._max_reply = max_reply
        self._explain_silence = explain_silence
        self._poll = select.poll()
        self._in_step = False
        self._tagging = False

    def synchronize(self, deadline: float) -> None:
        try:
            self._search(SyncSearch(), deadline)
        except IdRefused:
            self._search(SyncSearch(tagging=False), deadline)

    def exchange(self, request: bytes, limit: int, deadline: float) -> Reply:
        if not self._in_step:
            self.synchronize(deadline)
        return self._ask({new_id(): request}, limit, deadline)

    def order(self, request: bytes, limit: int, deadline: float) -> Reply | None:
        """Followed by a guest-ping, because requests are carried out in order."""
        if not self._in_step:
            self.synchronize(deadline)
        ping = new_id()
        try:
            reply = self._ask({new_id(): request, ping: PING}, limit, deadline)
            return None if reply.get("id") == ping else reply  # also where a ping is refused
        except TimeoutError:
            return None
        finally:
            self._in_step = False

    def mistrust(self) -> None:
        self._in_step = False

    def close(self) -> None:
        self._socket.close()

    def _search(self, search: SyncSearch, deadline: float) -> None:
        try:
            reply = self._converse(search.request, search, deadline)
        except TimeoutError:
            raise TimeoutError(
                f"the agent did not respond at all: {self._explain_silence()}"
            ) from None
        self._tagging = search.echoed(reply)

    def _ask(self, requests: Mapping[int, bytes], limit: int, deadline: float) -> Reply:
        """The first reply to one of these, which are given by their ids."""
        ids = list(requests) if self._tagging else []
        lines = requests.values()
        line = b"".join(map(tagged, lines, ids) if ids else lines)
        reader = ReplyReader(min(limit, self._max_reply), ids)
        try:
            return self._converse(line, reader, deadline)
        except TimeoutError:
            if not reader.dropped:
                raise
            raise TimeoutError(
                f"no answer; a reply without this request's id was dropped: {reader.dropped}"
            ) from None

    def _converse(self, request: bytes, reader: Reader, deadline: float) -> Reply:
        """Send and receive at once: an agent that is sending an old reply reads nothing."""
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
        return bool(wait_for_events(self._poll, deadline, "no answer") & ~select.POLLOUT)

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL) if data else 0
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise ConnectionError(CLOSED) from None

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(RECEIVE_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            raise ConnectionError(CLOSED)
        return data


def wait_for_events(poll: select.poll, deadline: float, complaint: str) -> int:
    """The events of the one descriptor that is in `poll`; TimeoutError when there are none."""
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(complaint)
        for _, events in poll.poll(min(remaining, LONGEST_POLL) * 1000):
            return events
