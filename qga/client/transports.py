"""How requests and replies are transferred, and the transport over a socket.

A transport returns the reply to exactly the request that was sent. Each request gets an id, and
after anything doubtful (a timeout, an unexpected or invalid reply) the transport synchronizes again
before the next request, each kind in its own way. Several requests may be in progress, which the
agent answers in order; after anything doubtful, the replies to all of them are given up.

A transport raises TimeoutError when the deadline (of `time.monotonic()`) passes, OSError when
the connection is lost, and ProtocolError for an invalid reply. After any of these, or a
KeyboardInterrupt, it can be used again.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

from qga.client.errors import ProtocolError
from qga.client.waits import events_of, wait_for_events
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

# More than a unix socket holds by default (net.core.wmem_default).
RECEIVE_SIZE = 256 * 1024

# While the host processes one reply, the next is in the channel and the agent works on a third.
MAX_UNDER_WAY = 3

# Seconds until a client that waits for its turn asks again: the guest may have been reset.
ASK_AGAIN = 5.0

GONE = "has the guest shut down or migrated?"
CLOSED = f"the connection was closed at the other end; {GONE}"
NO_AGENT = (
    "is the agent running in the guest (systemctl start qemu-guest-agent)? Or is the guest paused?"
)


class Transport(Protocol):
    """A way to reach one agent.

    `max_request`: bytes of the largest request. `max_output`: bytes that one member of a reply can
    carry as base64; None for no limit. `max_under_way`: requests that are worth submitting in
    advance.
    """

    @property
    def max_request(self) -> int: ...

    @property
    def max_output(self) -> int | None: ...

    @property
    def max_under_way(self) -> int: ...

    def synchronize(self, deadline: float) -> None:
        """Check that the agent answers, and that the next reply belongs to the next request."""

    def exchange(self, request: bytes, limit: int, deadline: float) -> Reply:
        """Send a request; return the reply, of at most `limit` bytes."""

    def submit(self, request: bytes, limit: int, deadline: float) -> int:
        """Submit a request; returns the ticket for its reply, of at most `limit` bytes."""

    def collect(self, ticket: int, deadline: float) -> Reply:
        """Wait for the reply with this ticket. Raises TimeoutError if it was given up."""

    def discard(self, ticket: int) -> None:
        """Drop the reply with this ticket when it arrives."""

    def order(self, request: bytes, limit: int, deadline: float) -> Reply | None:
        """Send a request without a reply on success; returns its error reply, or None.

        None means that the agent has accepted it, as far as is known at the deadline; a guest that
        shuts down does not answer. Raises TimeoutError only if the request could not be sent.
        """

    def mistrust(self) -> None:
        """The last reply was invalid: synchronize before the next request."""

    @property
    def queue(self) -> Queue | None:
        """The queue of a socket that serves one client at a time, if no reply is expected."""

    def is_served(self) -> bool:
        """Whether the agent has answered on this new connection. Does not wait for it."""

    def close(self) -> None: ...


class Queue(NamedTuple):
    """The queue of a socket that serves one client at a time.

    `others_wait`: returns whether there is somebody in it. `join`: connects to the same socket, and
    so to the end of the queue.
    """

    others_wait: Callable[[], bool]
    join: Callable[[float], Transport]


class SocketTransport:
    """A transport over a connected stream socket.

    `explain_silence`: called if the agent does not answer; returns advice. `queue`: if the socket
    may serve one client at a time.
    """

    max_request = MAX_REQUEST
    max_output = None
    max_under_way = MAX_UNDER_WAY

    def __init__(
        self,
        sock: socket.socket,
        max_reply: int,
        explain_silence: Callable[[], str] = lambda: NO_AGENT,
        queue: Queue | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._max_reply = max_reply
        self._explain_silence = explain_silence
        self._queue = queue
        self._asks_again = 0.0
        self._poll = select.poll()
        self._in_step = False
        self._tagging = False
        self._start_anew()

    def synchronize(self, deadline: float) -> None:
        self._collect_all(deadline)
        try:
            self._search(SyncSearch(), deadline)
        except IdRefused:
            self._search(SyncSearch(tagging=False), deadline)

    def exchange(self, request: bytes, limit: int, deadline: float) -> Reply:
        return self.collect(self.submit(request, limit, deadline), deadline)

    def submit(self, request: bytes, limit: int, deadline: float) -> int:
        if not (self._in_step or self._under_way):
            self.synchronize(deadline)
        ticket = new_id()
        with self._mistrusting():
            self._send_later({ticket: request})
            self._under_way.append((ticket, self._reader(limit, [ticket])))
            self._send()
        return ticket

    def collect(self, ticket: int, deadline: float) -> Reply:
        while ticket not in self._replies:
            if not self._under_way:
                raise TimeoutError("no answer; abandoned together with another request")
            self._take_next(deadline)
        return self._replies.pop(ticket)

    def discard(self, ticket: int) -> None:
        self._replies.pop(ticket, None)
        self._discarded.update(number for number, _ in self._under_way if number == ticket)

    def order(self, request: bytes, limit: int, deadline: float) -> Reply | None:
        """Send the request followed by a guest-ping, because requests are carried out in order."""
        self._collect_all(deadline)
        if not self._in_step:
            self.synchronize(deadline)
        order, ping = new_id(), new_id()
        self._send_later({order: request, ping: PING})
        try:
            reply = self._converse(self._reader(limit, [order, ping]), deadline)
            return None if reply.get("id") == ping else reply  # even if the ping is refused
        except TimeoutError:
            return None
        finally:
            self.mistrust()

    def mistrust(self) -> None:
        self._in_step = False
        self._start_anew()

    @property
    def queue(self) -> Queue | None:
        return None if self._under_way or self._replies else self._queue

    def is_served(self) -> bool:
        if self._in_step or self._under_way:
            return True
        now = time.monotonic()
        if now >= self._asks_again:
            self._asks_again = now + ASK_AGAIN
            self.mistrust()
            self._unsent.append(memoryview(SyncSearch().request))
            self._send()
        self._poll.register(self._socket, select.POLLIN)
        return bool(events_of(self._poll, now))

    def close(self) -> None:
        self._socket.close()

    def _start_anew(self) -> None:
        """Give up all replies. The next sync discards a partly sent request."""
        self._under_way: deque[tuple[int, ReplyReader]] = deque()
        self._replies: dict[int, Reply] = {}
        self._discarded: set[int] = set()
        self._unsent: deque[memoryview] = deque()
        self._received = b""

    def _search(self, search: SyncSearch, deadline: float) -> None:
        self.mistrust()
        self._unsent.append(memoryview(search.request))
        try:
            reply = self._converse(search, deadline)
        except TimeoutError:
            raise TimeoutError(
                f"the agent did not respond at all: {self._explain_silence()}"
            ) from None
        self._tagging = search.echoed(reply)

    def _send_later(self, requests: Mapping[int, bytes]) -> None:
        for ticket, request in requests.items():
            line = tagged(request, ticket if self._tagging else None)
            self._unsent.append(memoryview(line))
        self._in_step = False  # until they are answered

    def _reader(self, limit: int, tickets: list[int]) -> ReplyReader:
        return ReplyReader(min(limit, self._max_reply), tickets if self._tagging else [])

    def _collect_all(self, deadline: float) -> None:
        with suppress(ProtocolError):  # then they were given up
            while self._under_way:
                self._take_next(deadline)

    def _take_next(self, deadline: float) -> None:
        """Wait for the reply to the oldest request in progress."""
        ticket, reader = self._under_way.popleft()
        try:
            reply = self._converse(reader, deadline)
        except TimeoutError:
            if not reader.dropped:
                raise
            raise TimeoutError(
                f"no answer; a reply without this request's id was dropped: {reader.dropped}"
            ) from None
        if ticket in self._discarded:
            self._discarded.remove(ticket)
        else:
            self._replies[ticket] = reply

    def _converse(self, reader: Reader, deadline: float) -> Reply:
        """Send and receive at the same time: an agent that is sending a reply does not read."""
        with self._mistrusting():
            reply = reader.feed(self._received)
            while reply is None:
                self._send()
                if self._readable(bool(self._unsent), deadline):
                    reply = reader.feed(self._receive())
            self._received = reader.rest
            self._in_step = not (self._unsent or self._under_way or self._received)
        return reply

    @contextmanager
    def _mistrusting(self) -> Iterator[None]:
        """A context that synchronizes again after any exception, even an interrupt."""
        try:
            yield
        except BaseException:
            self.mistrust()
            raise

    def _readable(self, sending: bool, deadline: float) -> bool:
        """Wait until something can be read, or sent if we are `sending`."""
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if sending else 0))
        return bool(wait_for_events(self._poll, deadline, "no answer") & ~select.POLLOUT)

    def _send(self) -> None:
        """Send as much as the socket takes."""
        try:
            while self._unsent:
                data = self._unsent[0]
                sent = self._socket.send(data, socket.MSG_NOSIGNAL)
                if sent < len(data):
                    self._unsent[0] = data[sent:]
                    return
                self._unsent.popleft()
        except BlockingIOError:
            return
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
