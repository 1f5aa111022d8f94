"""One connection: its bytes, its requests in order, its replies.

What must stay true:

- Replies keep the order of the requests.
- While a blocking command runs on the worker, later requests wait. One exception: a command
  that overtakes (guest-sync, guest-sync-delimited) says that the client has given up on what
  came before. It waits no longer than PATIENCE, so that a client that merely sent several
  requests at once loses no reply; then the running command is abandoned: its reply is dropped
  when it comes, and the requests between the two are not carried out.
- A request that cannot be carried out yet (NotYet) waits without a thread, and is forgotten when
  the client gives up on it.
- When a command succeeds and nobody has its reply, its group is told so (`on_unheard`): the client
  has left, has sent a new sync, or sends one as its next request.
- Half a request is dropped when the client that sent it is seen to leave.
- A command that has not ended within `command-timeout` is answered with an error; what becomes
  of it is only logged.
- A command can find out that nobody waits for its reply any longer, and stop (qga.task).
- Replies that the other side does not collect wait in a bounded queue; while it is full
  nothing is read and nothing carried out. No more is decoded than the queue of requests takes.
- However much one connection sends, others have their turn: reading, decoding, carrying out and
  answering pause after _TURN.
"""

from __future__ import annotations

import os
import time
from errno import ECONNABORTED
from select import (
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    POLLHUP,
    poll,
)
from typing import TYPE_CHECKING, Any, Callable, Optional

from qga.errors import CommandNotFound, NotYet, QgaError, Refused
from qga.plugin.registry import Command
from qga.policy.caller import Caller
from qga.serving.audit import Entry
from qga.serving.output import Output
from qga.serving.pending import MAX_REQUESTS, Pending
from qga.wire.payload import Part
from qga.wire.protocol import (
    DELIMITER,
    Decoder,
    Event,
    Fault,
    Request,
    encode_error,
    encode_return,
)
from qga.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qga.loop import Timer
    from qga.serving.server import Server
    from qga.task import Task

READ_SIZE = 96 * 1024
"""Bytes of one read: room for a request that writes 64 KiB of a file, and below the size from
which malloc(3) gets each buffer from the kernel."""

_PORT_BUFFER = os.sysconf("SC_PAGE_SIZE")
"""Bytes that a virtio port gives at most in one read (drivers/char/virtio_console.c)."""

MAX_OUTPUT = 1024 * 1024
"""Bytes of replies that may wait before reading stops; one reply may exceed it."""

PATIENCE = 1.0
"""Seconds that a sync waits for a command that is running."""

_SILENCE = 60.0  # seconds between two warnings of halves of requests

_TURN = 0.002  # seconds in a row before other connections have theirs; a request takes some 10 µs

_AT_ONCE = 8  # requests between two looks at the clock

_BATCH = 128  # requests that are decoded at once

# Edge-triggered: a virtio port whose host side is closed reports a hang-up for ever. Waiting
# for room to write only when there was none: else each reply collected would wake the loop.
_QUIET = EPOLLIN | EPOLLRDHUP | EPOLLET
_FULL = _QUIET | EPOLLOUT

OnEnd = Callable[["Session", Optional[OSError]], None]
"""Called once when the other side is gone for good, with the error if there was one."""


class Running:
    """A command on the worker, or one that cannot be carried out yet.

    request: what to carry out later, of one that cannot be carried out yet.
    task: the worker's, of a command that is there.
    unheard: whether nobody is left to read the reply.
    """

    __slots__ = ("command", "entry", "id", "request", "since", "task", "unheard", "waits_no_longer")

    def __init__(
        self, command: Command, id: Any, entry: Entry | None, request: Request | None = None
    ) -> None:
        self.command = command
        self.id = id
        self.entry = entry
        self.request = request
        self.unheard = False
        self.since = time.monotonic()
        self.task: Task | None = None
        self.waits_no_longer = False  # than PATIENCE

    def give_up(self) -> None:
        """Let the command know that nobody waits for its reply any longer."""
        if self.task is not None:
            self.task.given_up = True

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.since


class Session:
    """A connection over the non-blocking descriptor `fd`.

    short_read_empties: a read that gives less than asked for has emptied the transport, as on
        a stream socket; a virtio port gives one buffer at a time.
    outlives_peer: the other side may go and come back, as on a virtio port; what was read of a
        request stays, and replies that wait are dropped.
    """

    def __init__(
        self,
        agent: Server,
        fd: int,
        caller: Caller,
        on_end: OnEnd,
        *,
        short_read_empties: bool,
        outlives_peer: bool,
    ) -> None:
        self.fd = fd
        self.caller = caller
        self._agent = agent
        self._verbose = agent.config.verbose
        self._audit = agent.audit
        self._on_end = on_end
        self._short_read_empties = short_read_empties
        self._outlives_peer = outlives_peer
        self._decoder = Decoder(
            caller.policy.limits.limits_message,
            None if short_read_empties else self._tell_of_half,
        )
        self._pending = Pending(agent.registry)
        self._running: Running | None = None
        self._last_answered: Command | None = None  # by the worker, and nothing has come since
        self._time_limit: Timer | None = None  # of what runs, or has run when it was set
        self._output = Output()
        self._peer_takes_replies = True
        self._peer_was_there = False  # and had sent nothing more, at the last look
        self._waits_for_room = False
        self._readable = True
        self._silent_until = 0.0
        self._peer_gone = False
        self._unheard = False  # nobody is left to read replies
        self._resumes = False  # the loop has been asked to go on with it
        self._closed = False

    def start(self) -> None:
        self._agent.loop.watch(self.fd, self._on_events, _QUIET)

    def close(self) -> None:
        """Forget the connection; a command that still runs loses its reply."""
        if not self._closed:
            self._closed = True
            self._agent.postponed.discard(self)
            self._agent.loop.unwatch(self.fd)
            if self._running is not None:
                self._running.give_up()

    def _on_events(self, events: int) -> None:
        if events == EPOLLIN:  # as nearly always
            self._readable = True
        else:
            self._note(events)
        self._proceed()

    def _note(self, events: int) -> None:
        if events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR):
            self._peer_gone = True
        if events & (EPOLLHUP | EPOLLERR):
            self._unheard = True
        if events & ~EPOLLOUT:
            self._readable = True

    def _proceed(self) -> None:
        """Carry out, answer and read as far as it goes."""
        try:
            busy = self._pending.size or self._output.size
            if busy:
                self._serve()
            if self._readable and not self._closed and (not busy or self._may_read()):
                self._read()
                if self._readable:  # there is more than one read takes, which is rare
                    self._read_for_a_turn()
        except Exception as error:  # memory, most likely; others must not suffer
            self._agent.log_fault(f"a connection of channel {self.caller.channel}", error)
            self._end(OSError(ECONNABORTED, os.strerror(ECONNABORTED)))
        if self._peer_gone and not self._outlives_peer:
            self._end_when_done()

    def _read_for_a_turn(self) -> None:
        end = time.monotonic() + _TURN
        while self._readable and not self._closed and self._may_read():
            if time.monotonic() > end:
                self._proceed_later()
                return
            self._read()

    def _proceed_later(self) -> None:
        """Go on after others have had their turn."""
        if not self._resumes:
            self._resumes = True
            self._agent.loop.post(self._resume)

    def _resume(self) -> None:
        self._resumes = False
        self._proceed()

    def _may_read(self) -> bool:
        """Whether more should be read now, and not after others have had their turn."""
        return not (self._resumes or self._decoder.rest or self._is_full())

    def _is_full(self) -> bool:
        """Whether nothing more should be read until a reply is collected or a command ends."""
        running = self._running is not None
        return (
            self._output.size > MAX_OUTPUT
            or self._pending.is_full(running)
            or (running and bool(self._decoder.rest))
        )

    def _read(self) -> None:
        """Read once, and carry out and answer what came."""
        try:
            data = os.read(self.fd, READ_SIZE)
        except BlockingIOError:
            self._readable = False
            self._peer_was_there = True
            return
        except OSError as error:
            self._end(error)
            return
        if not data:
            self._hang_up()
            return
        if self._short_read_empties and len(data) < READ_SIZE and not self._peer_gone:
            self._readable = False
        if len(data) == _PORT_BUFFER and not self._short_read_empties:
            data = self._read_on(data)
        self._peer_takes_replies = self._peer_was_there = False
        events = self._decoder.receive(data, _BATCH)
        rest = self._decoder.rest
        if len(events) == 1 and self._running is None and not (rest or self._pending.size):
            self._carry_out(events[0])  # without the queue, as nearly always
            if self._output.size:
                self._flush()
        elif events or rest or self._running is not None:
            self._queue(events, len(data))
            self._serve()

    def _queue(self, events: Sequence[Event], size: int) -> None:
        self._pending.add(events, size)
        if self._pending.overtakes and self._running is not None:
            self._limit_patience(self._running)

    def _read_on(self, data: bytes) -> bytes:
        """`data` with what follows it: a long request comes in a few hundred full buffers."""
        pieces, size = [data], len(data)
        try:
            while len(pieces[-1]) == _PORT_BUFFER and size < READ_SIZE:
                pieces.append(os.read(self.fd, READ_SIZE - size))
                size += len(pieces[-1])
        except OSError:  # the next read is told again, whatever it is
            pass
        return b"".join(pieces)

    def _hang_up(self) -> None:
        """The other side is gone, or, on a virtio port, not there yet.

        A host that connects and sends at once is heard before the guest's kernel knows that it
        is there: until then reads find nobody and writes no room. So replies that wait are
        dropped only when the sender of the last request has taken some of them already.
        """
        self._readable = False
        self._peer_gone = not self._outlives_peer
        if self._outlives_peer and self._peer_takes_replies:
            self._output.clear()
        if self._outlives_peer and self._peer_was_there:
            self._peer_was_there = False
            self._forget_peer()

    def _forget_peer(self) -> None:
        """The other side was there and is not any more."""
        self._decoder.reset()
        self._last_answered = None
        self._agent.client_left(self.caller)
        if self._running is not None:
            self._running.unheard = True
            self._running.give_up()
            if self._running.request is not None:
                self._running = None
                self._agent.loop.post(self._proceed)

    def _end_when_done(self) -> None:
        """End once all is answered, or read where nobody waits for answers.

        What was read is carried out all the same; a command that hangs holds no place.
        """
        unanswered = self._pending or self._decoder.rest or self._running or self._output.size
        all_read = not self._readable or self._is_full()
        if all_read and (self._unheard or not unanswered):
            self._end(None)

    def _end(self, error: OSError | None) -> None:
        if not self._closed:
            self.close()
            self._on_end(self, error)

    def _serve(self) -> None:
        """Carry out the requests at hand and send their replies in as few writes as can be."""
        if self._output.size:
            self._flush()
        end = time.monotonic() + _TURN
        while not self._resumes and (self._may_carry_out() or self._may_decode()):
            if self._may_decode():
                self._queue(self._decoder.go_on(_BATCH), 0)
            for _ in range(_AT_ONCE):
                if not self._may_carry_out():
                    break
                self._carry_out(self._pending.take())
            if time.monotonic() > end:
                self._proceed_later()
            if self._output.size and (self._resumes or not self._may_carry_out()):
                self._flush()
        if not (self._pending or self._running or self._decoder.rest):
            self._pending.size = 0

    def _may_decode(self) -> bool:
        """Whether the next of what was read should be looked at; behind a running command, too,
        for one that overtakes it."""
        if not self._decoder.rest or self._output.size > MAX_OUTPUT:
            return False
        return not self._pending or (
            self._running is not None and len(self._pending) < MAX_REQUESTS
        )

    def _may_carry_out(self) -> bool:
        return bool(self._pending) and self._running is None and self._output.size <= MAX_OUTPUT

    def _carry_out(self, event: Event) -> None:
        if isinstance(event, Fault):
            self._output.append([encode_error(event.error, event.id)])
            return
        name, given, request_id = event
        if self._verbose:
            self._agent.log.debug(f"channel {self.caller.channel}: {name}")
        command = self._agent.registry.get(name)
        if self._last_answered is not None:
            self._heed_next(command)
        try:
            if command is None:
                raise CommandNotFound(f"The command {name} has not been found")
            self.caller.policy.check(command, self._agent.frozen)
            arguments = command.bind(given, self.caller)
        except BaseException as error:
            self._refuse(name, error, request_id)
            self._audit.refused(self.caller, name, command, error)
            return
        entry = None
        if self._audit.changes if command.changes else self._audit.reads:
            entry = Entry(self.caller, command, given)
        try:
            try:
                result = command.at_once(**arguments)
            except BlockingIOError:
                if not command.blocking:
                    raise
                self._run(command, arguments, request_id, entry)
                return
            self._output.append(_encode(command, result, request_id))
        except NotYet:
            self._postpone(event, command)
        except BaseException as error:  # also what a plugin should not raise
            self._tell_end(command, entry, error, self._refuse(name, error, request_id))
        else:
            if entry is not None:
                self._tell_end(command, entry)

    def _postpone(self, request: Request, command: Command) -> None:
        self._running = Running(command, request.id, None, request)
        self._agent.postponed.add(self)
        if self._pending.overtakes:
            self._limit_patience(self._running)

    def try_again(self) -> None:
        """Carry out the request that was NotYet to be, if the client still waits for it."""
        running = self._running
        if running is not None and running.request is not None and not self._closed:
            self._running = None
            self._carry_out(running.request)
            self._proceed()

    def _heed_next(self, command: Command | None) -> None:
        """A sync right after a reply shows that the client did not wait for that reply.

        A delimited one does not: clients that connect anew for each command begin with it.
        """
        answered, self._last_answered = self._last_answered, None
        if answered and command and command.overtakes and not command.delimited:
            self._agent.tell_unheard(answered)

    def _tell_end(
        self,
        command: Command,
        entry: Entry | None,
        error: BaseException | None = None,
        answer: QgaError | None = None,
    ) -> None:
        """Tell the log; `answer` is what the client was told of the error."""
        if isinstance(error, Refused):
            self._audit.refused(self.caller, command.name, command, error)
        elif entry is not None:
            self._audit.ended(entry, answer or error)

    def _refuse(self, name: str, error: BaseException, id: Any) -> QgaError:
        """Answer with an error, and return what it is to the client."""
        if not isinstance(error, QgaError):
            error = self._agent.report_fault(name, error)
        elif isinstance(error, Refused):
            error = QgaError(f"Command {name} has been refused: {error.desc}")
        self._output.append([encode_error(error, id)])
        return error

    def _run(
        self, command: Command, arguments: dict[str, Any], id: Any, entry: Entry | None
    ) -> None:
        """Have the worker carry out a blocking command."""
        running = Running(command, id, entry)
        handler = command.handler
        running.task = self._agent.worker.submit(
            lambda: _encode(command, handler(**arguments), id),
            lambda parts, error: self._finish(running, parts, error),
            urgent=command.frozen,
            channel=self.caller.channel,
        )
        running.task.given_up = self._closed
        self._running = running
        if self._agent.config.command_timeout and self._time_limit is None:
            self._limit_time(self._agent.config.command_timeout)
        if self._pending.overtakes:
            self._limit_patience(running)

    def _finish(self, running: Running, parts: list[Part], error: BaseException | None) -> None:
        if running is not self._running:
            self._tell_of(running, f"ended after {running.age:.1f} s; its reply is dropped")
            self._end_unheard(running, error)
            return
        self._running = None
        if running.unheard or self._closed or self._is_alone(running):
            self._end_unheard(running, error)
            self._proceed()
            return
        answer = None
        if error is None:
            self._output.append(parts)
            self._last_answered = running.command
        else:
            answer = self._refuse(running.command.name, error, running.id)
        self._tell_end(running.command, running.entry, error, answer)
        self._proceed()

    def _end_unheard(self, running: Running, error: BaseException | None) -> None:
        self._tell_end(running.command, running.entry, error)
        if error is None:
            self._agent.tell_unheard(running.command)

    def _is_alone(self, running: Running) -> bool:
        """Whether the other side of a port has left before that could be seen.

        A host that has just come is not seen either (see `_hang_up`), but for no long time.
        """
        if not self._outlives_peer or running.age < PATIENCE:
            return False
        look = poll()
        look.register(self.fd, 0)
        return any(events & POLLHUP for _, events in look.poll(0))

    def _limit_time(self, seconds: float) -> None:
        """One timer a session, not one a command: commands may come by the thousand."""
        self._time_limit = self._agent.loop.call_later(seconds, self._check_time)

    def _check_time(self) -> None:
        self._time_limit = None
        running, limit = self._running, self._agent.config.command_timeout
        if running is None or self._closed:
            return
        if running.age < limit:
            self._limit_time(limit - running.age)
        elif running.command.timed:
            self._running = None
            running.give_up()
            name = running.command.name
            self._tell_of(running, f"is given up after {running.age:.1f} s")
            text = f"{name} has not ended within {limit} s (command-timeout); it may still go on"
            self._refuse(name, QgaError(text), running.id)
            self._proceed()

    def _limit_patience(self, running: Running) -> None:
        if not running.waits_no_longer:
            running.waits_no_longer = True
            wait = max(0.0, PATIENCE - running.age)
            self._agent.loop.call_later(wait, lambda: self._abandon(running))

    def _abandon(self, running: Running) -> None:
        """Give up on a command that still runs, and on what waits between it and a sync."""
        if self._running is not running or self._closed:
            return
        self._running = None
        running.give_up()
        dropped = self._pending.drop_overtaken()
        self._tell_of(
            running,
            f"is given up after {running.age:.1f} s, with {counted(dropped, 'more request')} "
            "behind it: the client has synchronised anew",
        )
        self._proceed()

    def _tell_of(self, running: Running, fate: str) -> None:
        """Log what has become of a command that hangs."""
        name = running.command.name
        self._agent.log.warning(
            f"{name} {fate}", "given-up", command=name, channel=self.caller.channel
        )

    def _tell_of_half(self) -> None:
        """Log it, but not each time: a host that cuts its requests may do so for ever."""
        now = time.monotonic()
        if now > self._silent_until:
            self._silent_until = now + _SILENCE
            self._agent.log.warning(
                f"channel {self.caller.channel}: half a request was dropped, for another has begun"
            )

    def _flush(self) -> None:
        if self._closed:
            self._output.clear()
            return
        waiting = self._output.size
        try:
            self._output.write_to(self.fd)
        except BlockingIOError:
            if not self._waits_for_room:
                self._wait_for_room(True)
        except OSError as error:
            self._end(error)
            return
        else:
            if self._waits_for_room:
                self._wait_for_room(False)
            if not self._output.size:  # as nearly always
                self._peer_takes_replies = True
                return
            self._proceed_later()
        if self._output.size < waiting:
            self._peer_takes_replies = True

    def _wait_for_room(self, wait: bool) -> None:
        self._waits_for_room = wait
        self._agent.loop.rewatch(self.fd, _FULL if wait else _QUIET)


def _encode(command: Command, result: Any, id: Any) -> list[Part]:
    """The reply to a command that has succeeded."""
    if not command.success_response:
        return []
    parts = encode_return(result, id, command.carries_number)
    return [DELIMITER, *parts] if command.delimited else parts
