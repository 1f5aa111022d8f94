"""Bytes to events, sans-IO: no socket, no select, no time, so any odd input is a plain unit test.

What must stay true, whatever arrives and however it is cut:

- The same bytes give the same events.
- A request ends where its brackets balance and needs no newline.
- A fault is reported when its token is complete. The rest of the value, until its brackets balance,
  is skipped. A stray byte such as 0xFF ends the skipping without a report. Anywhere else it is a
  fault: clients send it to discard anything pending.
- Memory is bounded by QEMU's limits: 64 MiB of tokens in a message, 2 Mi tokens, 1024 levels.
- Work grows with the number of bytes, not with the number of pieces.
- Only as many events are made at once as asked for, and only as many tokens are read as take a
  moment. All other bytes are kept as they came.

Where one client's bytes may follow another's, a request that begins inside an unfinished value
ends that value (see `incomplete`). Valid JSON is read as usual, but a fault that may
be an incomplete request is reported some tokens later.

Nearly all requests arrive whole, in one piece, and take a fast path through Python's JSON reader.
Anything that this reader cannot handle goes through QEMU's lexer and grammar.
"""

from __future__ import annotations

import sys

from qga.errors import QgaError
from qga.wire import fast, incomplete, jsontext, lexer
from qga.wire.grammar import Builder
from qga.wire.jsontext import MAX_DEPTH
from qga.wire.lexer import CLOSE_BRACE, CLOSE_BRACKET, COMMA, OPEN_BRACE, OPEN_BRACKET
from qga.wire.payload import MAX_MESSAGE
from qga.wire.position import Position
from qga.wire.protocol import DELIMITER, Fault, Request, to_event
from qga.wire.runs import Runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Callable

    from qga.wire.protocol import Event

MAX_TOKENS = 2 * 1024 * 1024
"""Tokens in one message (QEMU's limit)."""

_MOST_AT_ONCE = 2048  # tokens; each takes about a microsecond
_MANY = 256  # tokens of a message that is worth a look for runs
_RUN_TOKENS = 8  # of a run take as long as one that is read by itself

_BRACKETS = frozenset((OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET))
_SCALARS = frozenset((lexer.STRING, lexer.INTEGER, lexer.FLOAT, lexer.KEYWORD))

_QUOTE = b'"'
_DELIMITED = DELIMITER + b"{"
_STRAY_DELIMITER = jsontext.parse_error("stray '\ufffd'")

# Tokens after which an incomplete request may be followed by a whole one, whose beginning completes
# them.
_MAY_END_INCOMPLETE = _SCALARS | {OPEN_BRACE}


class Decoder:
    """Turns a connection's bytes into events.

    max_message: bytes of all tokens of one message.
    on_drop: where one client's bytes may follow another's, as on a port: a request then ends
        what an earlier client has left unfinished (see `incomplete`), and this is called.
    position: of the channel, which other connections share.
    """

    def __init__(
        self,
        max_message: int | None = None,
        on_drop: Callable[[], None] | None = None,
        position: Position | None = None,
    ) -> None:
        self._on_drop = on_drop
        self._watch = incomplete.Watch() if on_drop else None
        self._max_message = MAX_MESSAGE if max_message is None else max_message
        self._lexer = lexer.Lexer(min(lexer.MAX_TOKEN, self._max_message + 1))
        self._position = Position() if position is None else position
        # Not a method of our own, which would cost every request another call.
        self.pass_line = self._position.pass_line
        """Pass over a line that needs no decoding, only `at_start`."""
        self._located = 0  # bytes of the piece that the position has passed over
        self._between = True  # the next byte begins a message or is white space
        self.at_start = True
        """Whether the next byte begins a message, whose column depends on nothing before it."""
        self._budget = sys.maxsize  # tokens that may be looked at yet
        self.rest = b""
        """The bytes received but not read yet."""
        self._start_message()

    @property
    def unfinished(self) -> bool:
        """Whether there is an incomplete request."""
        return not self._between

    def reset(self) -> None:
        """Forget an incomplete request, and bytes that were not read yet."""
        self._position.pass_over(self.rest, 0, len(self.rest))
        self.rest = b""
        self._forget_message()

    def receive(
        self, data: bytes, most: int = sys.maxsize, is_piece: bool = True
    ) -> Sequence[Event]:
        """The events that `data` completes, in order; a tuple if `data` is a line that is known.

        most: the largest number of events. The bytes after them are the `rest`, to be decoded by
            `go_on` before any others.
        is_piece: whether it begins at the start of a received piece.
        """
        if self.at_start:
            if len(data) <= fast.MAX_KNOWN and data in fast.known:
                self.pass_line()
                return fast.known[data]
        elif self._watch and is_piece and not self._between and self._is_ended_by(data):
            self._drop()
        events: list[Event] = []
        position = 0
        if self.at_start and len(data) <= self._max_message:
            position = self._read_plainly(data, events, most)
            if position == len(data):
                self._position.pass_over(data, 0, position)
                return events
        self._located = 0
        self._budget = sys.maxsize if most == sys.maxsize else _MOST_AT_ONCE
        while position < len(data) and len(events) < most and self._budget > 0:
            position = self._read_tokens(data, position, events, most, is_piece)
        self._position.pass_over(data, self._located, position)
        self.rest = data[position:]
        self._between = self._lexer.at_rest and not self._tokens
        self.at_start = self._between and self._lexer.at_start
        return events

    def go_on(self, most: int) -> Sequence[Event]:
        """As `receive`, for the rest."""
        data, self.rest = self.rest, b""
        return self.receive(data, most, is_piece=False)

    def _read_plainly(self, data: bytes, events: list[Event], most: int) -> int:
        """As `fast.read`, also behind the 0xFF that a client may send first."""
        if not data.startswith(_DELIMITED):
            return fast.read(data, events, most)
        end = fast.read(data[1:], events, most - 1)
        if not events:
            return 0
        events.insert(0, Fault(QgaError(self._position.before(0) + _STRAY_DELIMITER.desc)))
        return end + 1

    def _start_message(self) -> None:
        self._builder: Builder | None = Builder()  # None while a faulty value is swallowed
        self._partial = bytearray()  # what earlier pieces held of the unfinished token
        self._braces = self._brackets = self._tokens = self._size = 0
        self._runs = Runs()
        self._lexer.incoming.clear()
        self._lexer.incoming.wanted = True
        self._held: Fault | None = None  # while it may be of an incomplete request
        self._held_until = 0  # number of the token
        if self._watch:
            self._watch.start_message()

    def _forget_message(self) -> None:
        self._lexer.reset()
        self._between = self.at_start = True
        self._start_message()

    def _read_tokens(
        self, data: bytes, origin: int, events: list[Event], most: int, is_piece: bool
    ) -> int:
        """Read from `origin` to the end, or until there are enough events, a request began inside
        a token, or enough tokens were read.

        Returns where it stopped.
        """
        begin = origin  # of the message, as far as it is in `data`
        # The piece, with a message from before.
        goes_on = is_piece and self._tokens > 0 and origin == 0
        for kind, start, end in self._lexer.scan(data, origin):
            self._budget -= 1
            if self._watch:
                hidden = self._watch.hidden_beginning(kind, data, begin, end)
                if hidden:
                    self._drop()
                    self._read_tokens(hidden, 0, events, most, is_piece=False)
                    return end
            ends = self._take(kind, data, origin, start, end, events)
            if self._watch and not ends:
                head = self._watch.misplaced_beginning(kind, data, begin, end)
                if head:
                    self._drop()
                    self._begin_with(head, data[: end - len(head)] if goes_on else b"", events)
                    return end
            if self._held and (ends or self._tokens >= self._held_until):
                events.append(self._held)
                self._held = None
            if ends:
                self._start_message()
                begin, goes_on = end, False
            elif kind == COMMA and self._tokens > _MANY:
                after = self._take_runs(data, end)
                if after > end:
                    self._lexer.stop_after(kind)
                    return after
            if (len(events) >= most or self._budget <= 0) and end < len(data):
                self._lexer.stop_after(kind)
                return end
        request = self._request_on_line(data) if self._watch and goes_on else None
        if request is None:
            self._keep_unfinished(data, origin, begin)
        else:
            self._drop()
            events.append(request)
        return len(data)

    def _take(
        self, kind: int, data: bytes, origin: int, start: int, end: int, events: list[Event]
    ) -> bool:
        """Take a token, and return whether it ends the message."""
        self._tokens += 1
        self._size += end - start
        if kind in _BRACKETS:
            self._count_bracket(kind)
        if self._builder is not None:
            try:
                if kind == lexer.STRAY:
                    raise jsontext.stray(self._whole(self._token(data, origin, start, end)))
                if self._size > self._max_message:
                    raise _limit_exceeded("token size")
                if self._tokens > MAX_TOKENS:
                    raise _limit_exceeded("token count")
                if self._braces + self._brackets > MAX_DEPTH:
                    raise _limit_exceeded("nesting depth")
                token = self._token(data, origin, start, end) if kind in _SCALARS else b""
                incoming = self._lexer.incoming if self._lexer.incoming.size else None
                if self._builder.take(kind, token, incoming):
                    events.append(to_event(self._builder.value))
                    return True
            except QgaError as error:
                self._builder = None
                self._lexer.incoming.wanted = False  # until the next message
                self._report(error, kind, data, start, events)
            if self._lexer.incoming.size:
                self._lexer.incoming.clear()
        braces, brackets = self._braces, self._brackets
        return kind == lexer.STRAY or braces < 0 or brackets < 0 or not (braces or brackets)

    def _count_bracket(self, kind: int) -> None:
        if kind == OPEN_BRACE:
            self._braces += 1
        elif kind == CLOSE_BRACE:
            self._braces -= 1
        elif kind == OPEN_BRACKET:
            self._brackets += 1
        else:
            self._brackets -= 1

    def _report(
        self, error: QgaError, kind: int, data: bytes, start: int, events: list[Event]
    ) -> None:
        """Report the fault of the token that begins at `start`."""
        place = ""
        if isinstance(error, jsontext.ParseError):
            if start > self._located:
                self._position.pass_over(data, self._located, start)
                self._located = start
            place = self._position.before(self._located - start - self._lexer.column_shift)
        # A new error, without the traceback, which would keep the message alive in its frames.
        fault = Fault(QgaError(place + error.desc))
        if self._watch and kind in _MAY_END_INCOMPLETE:
            self._held, self._held_until = fault, self._tokens + incomplete.TOKENS
        else:
            events.append(fault)

    def _token(self, data: bytes, origin: int, start: int, end: int) -> bytes | bytearray:
        """The bytes of a token that may have begun in an earlier piece, but not decoded ones."""
        if start >= origin:
            return self._not_taken(data, start, start, end)
        token = self._partial
        token += self._not_taken(data, start, origin, end)
        self._partial = bytearray()
        return token

    def _not_taken(self, data: bytes, start: int, begin: int, end: int) -> bytes:
        """`data` from `begin` to `end`, without what was decoded of the string at `start`."""
        taken = self._lexer.incoming.size
        if not taken:
            return data[begin:end]
        text = start + len(_QUOTE)
        return data[begin : max(begin, text)] + data[max(begin, text + taken) : end]

    def _whole(self, token: bytes | bytearray) -> bytes | bytearray:
        """A token with what was decoded of it, at least as much as an error shows."""
        if not self._lexer.incoming.size:
            return token
        return token[: len(_QUOTE)] + self._lexer.incoming.beginning() + token[len(_QUOTE) :]

    def _take_runs(self, data: bytes, position: int) -> int:
        """Take items of the open list or object while they are plain; return where they end."""
        container = self._builder.container if self._builder else None
        room = MAX_DEPTH - self._braces - self._brackets
        while container is not None and self._budget > 0:
            run = self._runs.after(self._tokens, data, position, container, room)
            tokens, size = self._tokens + run.tokens, self._size + run.size
            self._budget -= run.tokens // _RUN_TOKENS
            if run.content is None or tokens > MAX_TOKENS or size > self._max_message:
                break
            run.extend(container)
            self._tokens, self._size = tokens, size
            position = run.end
        return position

    def _keep_unfinished(self, data: bytes, origin: int, begin: int) -> None:
        if self._lexer.unfinished and self._builder is not None:
            start = len(data) - self._lexer.unfinished
            self._partial += self._not_taken(data, start, max(origin, start), len(data))
        if self._watch:
            self._watch.keep(data, begin)

    # An incomplete request, and another one behind it.

    def _drop(self) -> None:
        """Forget the message, because another one has begun."""
        self._forget_message()
        if self._on_drop:
            self._on_drop()

    def _is_ended_by(self, data: bytes) -> bool:
        """Whether a piece begins with a request that cannot be part of the unfinished message."""
        if self._watch is None or not incomplete.begins_with_request(data):
            return False
        return self._lexer.breaks_at_object or (
            self._lexer.at_rest and not self._watch.takes_object
        )

    def _request_on_line(self, data: bytes) -> Request | None:
        """The request that a whole piece, which is one line, consists of."""
        if self._lexer.unfinished or not incomplete.is_line_of_request(data):
            return None
        return _request_in(data)

    def _begin_with(self, head: bytes, before: bytes, events: list[Event]) -> None:
        """Begin a message with `{`, the name of a member and `:`.

        before: what precedes it in this piece, which may be a request itself.
        """
        request = _request_in(before)
        if request is not None:
            events.append(request)
        self._read_tokens(head, 0, events, sys.maxsize, is_piece=False)


def _limit_exceeded(what: str) -> QgaError:
    return QgaError(f"JSON {what} limit exceeded")


def _request_in(text: bytes) -> Request | None:
    """The request that the whole text consists of; None for any other text."""
    if not incomplete.begins_with_request(text):
        return None
    decoder = Decoder()
    events = decoder.receive(text)
    is_whole = len(events) == 1 and not decoder.unfinished
    return events[0] if is_whole and isinstance(events[0], Request) else None
