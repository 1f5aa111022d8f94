"""One connection: the bytes that come, the requests in order, the replies that leave.

What must stay true:

- Replies keep the order of the requests. While a blocking command runs, later requests wait; one
  of them may cut that short (qga.serving.running).
- Half a request is dropped when the client that sent it is seen to leave.
- Replies that the other side does not collect wait in a bounded queue. While it is full nothing is
  read and nothing is carried out. No more is decoded than the queue of requests takes.
- However much one connection sends, others get their turn: reading, decoding, carrying out and
  answering pause after _TURN.
"""

from __future__ import annotations

import os
import time
from errno import ECONNABORTED
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP

from qga.policy.caller import Caller
from qga.serving import port
from qga.serving.dispatcher import Dispatcher
from qga.serving.output import Output
from qga.serving.pending import MAX_REQUESTS, Pending
from qga.serving.running import PATIENCE, UnderWay
from qga.wire.decoder import Decoder
from qga.wire.fast import MAX_KNOWN
from qga.wire.position import Position

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Callable, Optional

    OnEnd = Callable[["Session", Optional[OSError]], None]
    """Called once when the other side has gone for good, with the error if there was one."""

    from qga.loop import Timer
    from qga.serving.server import Server
    from qga.wire.protocol import Event

READ_SIZE = 96 * 1024
"""Bytes of one read: room for a request that writes 64 KiB of a file, and below the size from
which malloc(3) gets each buffer from the kernel."""

MAX_OUTPUT = 1024 * 1024
"""Bytes of replies that may wait before reading stops; one reply may exceed it."""

_DOUBT = 0.1
"""Seconds in which a port's next client is connected, if the hang-up was that of the one before."""

_SILENCE = 60.0  # seconds between two warnings about incomplete requests

_TURN = 0.002  # seconds before other connections get theirs; a request takes some 10 µs

_AT_ONCE = 8  # requests between two looks at the clock

_BATCH = 128  # requests decoded at once

# Edge-triggered: a virtio port whose host side is closed reports a hang-up for ever. EPOLLOUT only
# after a write found no room: otherwise each reply that the host collects would wake the loop.
_QUIET = EPOLLIN | EPOLLRDHUP | EPOLLET
_FULL = _QUIET | EPOLLOUT


class Session:
    """A connection over the non-blocking descriptor `fd`.

    short_read_empties: a read that returns fewer bytes than asked for has emptied the transport,
        as on a stream socket. A virtio port returns one buffer at a time.
    outlives_peer: the other side may leave and come back, as on a virtio port. What was read of a
        request stays, and waiting replies are dropped.
    position: how far the channel's input has been read.
    closed: whether the connection was given up; replies then go nowhere.
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
        position: Position | None = None,
    ) -> None:
        self.fd = fd
        self.caller = caller
        self._agent = agent
        self._on_end = on_end
        self._short_read_empties = short_read_empties
        self._outlives_peer = outlives_peer
        self._decoder = Decoder(
            caller.policy.limits.limits_message,
            None if short_read_empties else self._on_half_request,
            position,
        )
        self._pending = Pending(agent.registry)
        self._output = Output()
        self._under_way = UnderWay(agent, caller.channel, self._pending, self._output)
        self._dispatcher = Dispatcher(agent, caller, self._under_way, self._output)
        self._peer_takes_replies = True
        self._peer_was_there = False  # and had sent nothing more, when last looked at
        self._waits_for_room = False
        self._full_since = 0.0
        self._doubt: Timer | None = None  # until it is known whose hang-up was seen
        self._readable = True
        self._silent_until = 0.0
        self._peer_gone = False
        self._unheard = False  # nobody is left to read replies
        self._resumes = False  # it waits for its turn
        self.closed = False

    def start(self) -> None:
        self._agent.loop.watch(self.fd, self._on_events, _QUIET)

    def close(self) -> None:
        """Drop the connection; a command that still runs loses its reply."""
        if not self.closed:
            self.closed = True
            self._agent.postponed.discard(self)
            self._agent.loop.unwatch(self.fd)
            if self._under_way.running is not None:
                self._under_way.running.give_up()

    def _on_events(self, events: int) -> None:
        if events == EPOLLIN:  # as nearly always
            self._readable = True
        else:
            self._note(events)
        if self._agent.loop.is_round_over():
            self._proceed_later()
        else:
            self.proceed()

    def _note(self, events: int) -> None:
        if events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR):
            self._peer_gone = True
        if events & (EPOLLHUP | EPOLLERR):
            self._unheard = True
            if not self._doubts():
                self._drop_unheard()
        if events & ~EPOLLOUT:
            self._readable = True

    def proceed(self) -> None:
        """Carry out, answer and read as far as it goes."""
        try:
            if self._pending.size:
                self._serve()
            elif self._output.size:  # the reply of a command that has run on a thread
                self._flush()
            elif self._readable and not self.closed:
                self._read(at_rest=True)
            if self._readable:  # on a socket only if more came than one read takes
                self._read_for_a_turn()
        except Exception as error:  # most likely MemoryError; other connections must not suffer
            self._agent.log_fault(f"a connection of channel {self.caller.channel}", error)
            self._end(OSError(ECONNABORTED, os.strerror(ECONNABORTED)))
        if self._peer_gone and not self._outlives_peer:
            self._end_when_done()

    def _read_for_a_turn(self) -> None:
        end = time.monotonic() + _TURN
        while self._readable and not self.closed and self._may_read():
            if time.monotonic() > end:
                self._proceed_later()
                return
            self._read()

    def _proceed_later(self) -> None:
        """Continue after others have had their turn."""
        if not self._resumes:
            self._resumes = True
            self._agent.turns.wait(self)

    def take_turn(self) -> None:
        """Go on after others have had their turn."""
        self._resumes = False
        self.proceed()

    def _may_read(self) -> bool:
        """Whether more should be read now, and not after others have had their turn."""
        return not (self._resumes or self._decoder.rest or self._is_full())

    def _is_full(self) -> bool:
        """Whether nothing more should be read until a reply is collected or a command ends."""
        running = self._under_way.running is not None
        return (
            self._output.size > MAX_OUTPUT
            or self._pending.is_full(running)
            or (running and bool(self._decoder.rest))
        )

    def _read(self, at_rest: bool = False) -> None:
        """Read once, and carry out and answer what came.

        at_rest: whether nothing waits to be carried out or sent.
        """
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
        if self._short_read_empties:
            if len(data) < READ_SIZE and not self._peer_gone:
                self._readable = False
        else:
            if self._doubt is not None:
                self._settle(another_sends=True)
            self._peer_takes_replies = self._peer_was_there = False
            if len(data) == port.BUFFER:
                data = port.read_on(self.fd, data, READ_SIZE)
        decoder = self._decoder
        if at_rest and len(data) <= MAX_KNOWN and decoder.at_start:
            reply = self._dispatcher.repeat(data)
            if reply is not None:
                decoder.pass_line()
                self._send(reply)
                return
        self._decode(data)

    def _decode(self, data: bytes) -> None:
        """Carry out and answer the requests in it."""
        events = self._decoder.receive(data, _BATCH)
        rest = self._decoder.rest
        running = self._under_way.running
        if len(events) == 1 and not (rest or running or self._pending.size):
            self._dispatcher.carry_out(events[0], self)  # without the queue, as nearly always
            if self._output.size:
                self._flush()
            if type(events) is tuple:  # a line that was met before
                self._dispatcher.learn(data, events[0])
        elif events or rest or running:
            self._queue(events, len(data))
            self._serve()
        else:  # a part of a long request
            self._agent.memory.use()

    def _queue(self, events: Sequence[Event], size: int) -> None:
        self._pending.add(events, size)
        self._under_way.limit_patience()

    def _hang_up(self) -> None:
        """The other side has gone or, on a virtio port, is not there yet."""
        self._readable = False
        self._peer_gone = not self._outlives_peer
        if self._outlives_peer and not self._doubts():
            self._forget_client()

    def _doubts(self) -> bool:
        """Whether a hang-up may be that of the client before, which has asked for nothing.

        A request can arrive before the guest's kernel learns that its sender has connected, and
        even that the client before has left. If something depends on it, a little time shows whose
        hang-up it was: the sender is still there, and waits.
        """
        if self._doubt is None and self._outlives_peer:
            running = self._under_way.running
            newest = max(self._full_since, running.since if running else 0.0)
            if self._decoder.unfinished or time.monotonic() < newest + PATIENCE:
                self._doubt = self._agent.loop.call_later(_DOUBT, self._settle)
        return self._doubt is not None

    def _settle(self, another_sends: bool = False) -> None:
        """Find out whether the client has left whose hang-up may have been seen."""
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None
        if self.closed:
            return
        if another_sends or port.client_sends(self.fd):
            has_left = not self._decoder.unfinished  # else it is likely the rest of the request
        else:
            has_left = port.client_has_left(self.fd)
        if has_left:
            self._forget_client()
        if not another_sends:
            self.proceed()

    def _forget_client(self) -> None:
        """Drop what only the client that has left was waiting for."""
        self._drop_unheard()
        if self._peer_was_there:
            self._peer_was_there = False
            self._decoder.reset()
            self._agent.on_client_left(self.caller)
            if self._dispatcher.forget_client():
                self._agent.loop.post(self.proceed)

    def _drop_unheard(self) -> None:
        """Drop the rest of a reply whose reader has left, which the next one must not get.

        Until the kernel learns of a client, writes find no room. So it is dropped only if the
        sender of the last request has taken some of it.
        """
        if self._outlives_peer and self._peer_takes_replies:
            self._output.clear()

    def peer_has_left(self) -> bool:
        """Whether the other side of a port has left, also before an event has reported it."""
        return self._outlives_peer and port.client_has_left(self.fd)

    def _end_when_done(self) -> None:
        """End once everything is answered, or read if nobody waits for answers.

        Requests that were read are still carried out. A command that hangs occupies no place among
        the clients.
        """
        waiting = self._pending or self._decoder.rest or self._output.size
        unanswered = waiting or self._under_way.running
        all_read = not self._readable or self._is_full()
        if all_read and (self._unheard or not unanswered):
            self._end(None)

    def _end(self, error: OSError | None) -> None:
        if not self.closed:
            self.close()
            self._on_end(self, error)

    def _serve(self) -> None:
        """Carry out the decoded requests and send their replies in as few writes as possible."""
        if self._output.size:
            self._flush()
        end = time.monotonic() + _TURN
        while not self._resumes and (self._may_carry_out() or self._may_decode()):
            if self._may_decode():
                self._queue(self._decoder.go_on(_BATCH), 0)
            for _ in range(_AT_ONCE):
                if not self._may_carry_out():
                    break
                self._dispatcher.carry_out(self._pending.take(), self)
            if time.monotonic() > end:
                self._proceed_later()
            if self._output.size and (self._resumes or not self._may_carry_out()):
                self._flush()
        if not (self._pending or self._under_way.running or self._decoder.rest):
            self._pending.size = 0

    def _may_decode(self) -> bool:
        """Whether more of what was read should be decoded now.

        Also while a command runs: the next request may be one that overtakes it.
        """
        if not self._decoder.rest or self._output.size > MAX_OUTPUT:
            return False
        running = self._under_way.running is not None
        return not self._pending or (running and len(self._pending) < MAX_REQUESTS)

    def _may_carry_out(self) -> bool:
        if self._under_way.running is not None:
            return False
        return bool(self._pending) and self._output.size <= MAX_OUTPUT

    def try_again(self) -> None:
        """Carry out the postponed request, if the client still waits for it."""
        running = self._under_way.running
        if running is not None and running.request is not None and not self.closed:
            self._under_way.running = None
            self._dispatcher.carry_out(running.request, self, again=True)
            self.proceed()

    def _on_half_request(self) -> None:
        """Log it, but not each time: a host that cuts its requests may do so for ever."""
        now = time.monotonic()
        if now > self._silent_until:
            self._silent_until = now + _SILENCE
            self._agent.log.warning(
                f"channel {self.caller.channel}: dropped an incomplete request: another one began"
            )

    def _send(self, reply: bytes) -> None:
        """Send a reply before which no other waits."""
        try:
            sent = os.write(self.fd, reply)
        except OSError:  # which is met again
            sent = 0
        if sent == len(reply):  # as nearly always
            self._peer_takes_replies = True
        else:
            if sent:
                self._peer_takes_replies = True
            self._output.append([reply[sent:]])
            self._flush()

    def _flush(self) -> None:
        if self.closed:
            self._output.clear()
            return
        if self._doubt is not None:
            return
        output = self._output
        waiting = output.size
        try:
            output.write_to(self.fd)
        except BlockingIOError:
            if not self._waits_for_room:
                self._wait_for_room(True)
        except OSError as error:
            self._end(error)
            return
        else:
            if self._waits_for_room:
                self._wait_for_room(False)
            if not output.size:  # as nearly always
                self._peer_takes_replies = True
                return
            self._proceed_later()
        self._agent.memory.use()
        if output.size < waiting:
            self._peer_takes_replies = True

    def _wait_for_room(self, wait: bool) -> None:
        self._waits_for_room = wait
        self._full_since = time.monotonic() if wait else 0.0
        self._agent.loop.rewatch(self.fd, _FULL if wait else _QUIET)
