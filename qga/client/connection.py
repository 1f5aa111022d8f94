"""Connection: requests to the agent of one guest, and the replies to them.

What must stay true: a caller gets the reply to its own request or an error, never the reply to
another request. This holds after a timeout or an interrupt, when threads share the object, and when
the guest is reverted to a snapshot. The lock here, the ids of requests and the synchronization of
the transport ensure it. Nothing is ever sent twice: a lost connection is reported, and the next
call makes a new one. The size of a reply is limited by its command, so that a guest cannot use up
our memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TypeVar

from qga.client.addresses import transport_opener
from qga.client.conversion import converted, member
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    ConnectError,
    ProtocolError,
    QueueFull,
)
from qga.client.hosts.discovery import FoundGuest
from qga.client.transports import Transport
from qga.client.waits import Lock, pause, undisturbed
from qga.client.wire import (
    DEFAULT_MAX_REPLY,
    USUAL_REPLY,
    Reply,
    encode_request,
    outcome,
    reply_limit,
)

T = TypeVar("T")
Self = TypeVar("Self", bound="Connection")

# Seconds. On most machines, an agent that cannot carry out a command reports it sooner.
ORDER_PATIENCE = 5.0

# Seconds between two attempts to enter the queue of a socket that is full of waiting clients.
FULL_QUEUE_PAUSE = 0.05

# Only their reply tells what they have left in the guest, and how to end it.
LEAVES_SOMETHING = {"guest-exec", "guest-file-open", "qga-connect", "qga-exec", "qga-tunnel"}

# Bytes of a request in addition to its data.
REQUEST_FRAME = 1024


class Connection:
    """The base of the methods for commands: see qga.client.agent."""

    def __init__(
        self,
        address: str | FoundGuest,
        timeout: float = 5.0,
        *,
        max_reply: int = DEFAULT_MAX_REPLY,
    ) -> None:
        self.address = str(address)
        self.timeout = timeout
        self._open_transport = transport_opener(address, max_reply)
        self._transport: Transport | None = None
        self._way_back: Callable[[float], Transport] | None = None
        """To the socket that others were given: a name could lead elsewhere by now."""
        self._has_queue: bool | None = None
        self._lock = Lock()

    def __enter__(self: Self) -> Self:
        try:
            self.sync()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, after the call of another thread that is using it."""
        with self._lock:
            self._way_back = None
            if self._transport is not None:
                self._transport.close()
                self._transport = self._has_queue = None

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = None,
        max_reply: int | None = None,
        **keywords: Any,
    ) -> Any:
        """Run `command` in the guest and return its `return` value, decoded from JSON.

        Arguments are given by their names on the wire in a mapping, or as keywords with `_`
        for `-`, or both: `call("guest-file-read", handle=1000, count=4096)`. `max_reply`: bytes
        that the reply may have, 4 MiB by default, and more for the commands whose point is much
        data (guest-file-read, guest-exec-status).
        """
        named = {**(arguments or {}), **named_on_the_wire(keywords)}
        request = self._request(command, named)
        limit = reply_limit(command, named) if max_reply is None else max_reply

        def ask(link: Transport, deadline: float) -> Any:
            with undisturbed() if command in LEAVES_SOMETHING else nullcontext():
                return understood(link, link.exchange(request, limit, deadline), command)

        return self._perform(command, timeout, ask)

    def order(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = None,
        **keywords: Any,
    ) -> None:
        """Run a `command` that answers nothing on success (guest-info reports which do).

        Returns once the agent has accepted it: it went on to the next request, disconnected, or
        sent no error for `timeout` seconds (by default ORDER_PATIENCE). A guest that shuts down
        rarely sends anything.
        """
        patience = min(self.timeout, ORDER_PATIENCE) if timeout is None else timeout
        request = self._request(command, {**(arguments or {}), **named_on_the_wire(keywords)})

        def ask(link: Transport, deadline: float) -> None:
            reply = link.order(request, USUAL_REPLY, deadline)
            if reply is not None:
                outcome(reply, command)

        with self._lock:
            self.sync(timeout=timeout)
            with suppress(ConnectError):  # sync() has just worked, so the guest is shutting down
                self._perform(command, patience, ask)

    def sync(self, *, timeout: float | None = None) -> None:
        """Connect if necessary, and check that the agent answers and is synchronized with us."""
        self._perform(
            "guest-sync-delimited", timeout, lambda link, deadline: link.synchronize(deadline)
        )

    def max_data(self) -> int:
        """The most bytes that one request can carry to this guest as base64."""
        request = self._perform("connect", None, lambda link, _deadline: link.max_request)
        return (request - REQUEST_FRAME) // 4 * 3

    def max_output(self) -> int | None:
        """The most bytes that one member of a reply can carry from this guest as base64.

        None: no limit besides those of the commands.
        """
        return self._perform("connect", None, lambda link, _deadline: link.max_output)

    def _submit(self, command: str, **keywords: Any) -> int:
        """Submit a request, with arguments as for `call`; returns the ticket for its reply."""
        named = named_on_the_wire(keywords)
        request, limit = self._request(command, named), reply_limit(command, named)
        return self._perform(
            command, None, lambda link, deadline: link.submit(request, limit, deadline)
        )

    def _collect(self, command: str, ticket: int) -> Any:
        """The `return` value with this ticket."""
        return self._perform(
            command,
            None,
            lambda link, deadline: understood(link, link.collect(ticket, deadline), command),
        )

    def _discard(self, ticket: int) -> None:
        """Drop the reply with this ticket when it comes."""
        with self._lock:
            if self._transport is not None:
                self._transport.discard(ticket)

    def _let_others_in(self) -> None:
        """Let other clients have a socket that serves one at a time, until the next call."""
        with self._lock:
            if self._transport is not None and self._transport.queue is not None:
                self.close()

    def _give_way(self) -> bool:
        """Disconnect if other clients wait for a socket that serves one at a time."""
        with self._lock:
            queue = None if self._transport is None else self._transport.queue
            if queue is None or not queue.others_wait():
                return False
            self.close()
            self._way_back = queue.join
            return True

    def _has_turn(self) -> bool:
        """Connect if necessary; whether the next call will be answered soon. Does not wait."""
        try:
            return self._perform("connect", 0.0, lambda link, _deadline: link.is_served())
        except QueueFull:
            return False

    def _max_under_way(self) -> int:
        """How many requests this agent can take in advance; determined once per connection.

        QEMU's takes one: on a virtio port it loses the reply to a long request if the next one has
        begun to come (11.1.3, observed).
        """
        with self._lock:
            most = self._perform("connect", None, lambda link, _deadline: link.max_under_way)
            if most > 1 and self._has_queue is None:
                self._has_queue = self._is_qga()
            return most if self._has_queue else 1

    def _is_qga(self) -> bool:
        try:
            self.call("qga-get-version")
        except CommandError:
            return False
        return True

    def _request(self, command: str, arguments: Mapping[str, Any]) -> bytes:
        with self._telling(command):
            return encode_request(command, arguments)

    def _ask(
        self,
        command: str,
        kind: type[T],
        part: str = "",
        /,
        *,
        timeout: float | None = None,
        **args: Any,
    ) -> T:
        """Like `call`, but convert the reply, or its member `part`, to `kind`; see conversion."""
        reply = self.call(command, timeout=timeout, **args)
        with self._telling(command):
            return member(kind, part, reply) if part else converted(kind, reply)

    def _ask_patiently(
        self, command: str, kind: type[T], part: str = "", /, *, timeout: float, **args: Any
    ) -> T:
        """Like `_ask`, for commands that take long. A missing agent is still reported soon."""
        with self._lock:
            self.sync()
            return self._ask(command, kind, part, timeout=max(timeout, self.timeout), **args)

    def _perform(
        self, command: str, timeout: float | None, step: Callable[[Transport, float], T]
    ) -> T:
        seconds = self.timeout if timeout is None else timeout
        with self._lock, self._telling(command):
            deadline = time.monotonic() + seconds
            try:
                if self._transport is None:
                    self._transport = self._connected(deadline)
                return step(self._transport, deadline)
            except AgentError:  # some of which are OSErrors
                raise
            except TimeoutError as error:
                reason = error.strerror or str(error)
                raise AgentTimeout(self.address, command, seconds, reason) from None
            except OSError as error:
                self.close()
                raise ConnectError(
                    self.address, error.strerror or str(error), command=command
                ) from None

    def _connected(self, deadline: float) -> Transport:
        way, self._way_back = self._way_back or self._open_transport, None
        while True:
            try:
                return way(deadline)
            except QueueFull:
                if time.monotonic() >= deadline:
                    self._way_back = way
                    raise
            pause(FULL_QUEUE_PAUSE)

    @contextmanager
    def _telling(self, command: str) -> Iterator[None]:
        """Add the address of the guest and the command to errors that pass."""
        try:
            yield
        except AgentError as error:
            if not error.address:
                error.address, error.command = self.address, command
            raise


class UnderWay:
    """Pipelined requests of one command, for the content of a file.

    The agent answers them in order. It works on the next piece while the previous one is in the
    channel or is processed here. `len` is the number of replies that were not collected yet. Use it
    as a context manager, which drops replies that were not collected.
    """

    def __init__(self, connection: Connection, command: str) -> None:
        self._connection = connection
        self._command = command
        self._allowed = 1
        self._tickets: deque[int] = deque()

    def __enter__(self) -> UnderWay:
        return self

    def __exit__(self, *_: object) -> None:
        for ticket in self._tickets:
            self._connection._discard(ticket)

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def takes_more(self) -> bool:
        """Whether one more request should be submitted before the next reply is collected."""
        return len(self._tickets) < self._allowed

    def submit(self, **arguments: Any) -> None:
        self._tickets.append(self._connection._submit(self._command, **arguments))

    def collect(self) -> Any:
        """The `return` value of the oldest request."""
        return self._connection._collect(self._command, self._tickets.popleft())

    def went_well(self, whole: bool) -> None:
        """Allow more requests in advance as long as all pieces are `whole`, as with regular files.

        A FIFO or terminal transfers less: the program at its other end decides when.
        """
        self._allowed = min(self._allowed + 1, self._connection._max_under_way()) if whole else 1


def understood(link: Transport, reply: Reply, command: str) -> Any:
    """The outcome of a reply."""
    try:
        return outcome(reply, command)
    except ProtocolError:
        link.mistrust()
        raise


def named_on_the_wire(keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in keywords.items()}
