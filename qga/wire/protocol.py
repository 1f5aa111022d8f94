"""The wire, sans-IO: bytes in, requests and faults out; results in, bytes out.

No socket, no select, no time: any odd sequence of bytes is a plain unit test. What must stay
true, whatever arrives and however it is cut:

- The same bytes give the same events.
- A request ends where its brackets balance and needs no newline.
- After any fault the next good request is answered. 0xFF is a fault of its own, which clients
  send to get rid of whatever was pending.
- Memory is bounded by QEMU's limits: 64 MiB of tokens in a message, 2 Mi tokens, 1024 levels.
- Work grows with the number of bytes, not with the number of pieces.
- No more events are made at once than asked for, however small they are, and no more tokens looked
  at than take a moment, however large a message is: the other bytes are kept as they came.

Where one client's bytes may follow another's, a request that begins inside an unfinished value
ends that value (see `halves`); nothing that is JSON is read otherwise for it.

Whole requests in one piece, which is nearly all there ever is, take a fast path through
Python's JSON reader. What that reader cannot take goes through QEMU's lexer and grammar.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Union

from qga.errors import QgaError
from qga.wire import bulk, halves, jsontext, jsonwriter, lexer
from qga.wire.jsontext import MAX_DEPTH
from qga.wire.payload import MAX_MESSAGE as MAX_MESSAGE
from qga.wire.payload import Part, Payload

MAX_TOKENS = 2 * 1024 * 1024
"""Tokens in one message (QEMU's limit)."""

DELIMITER = b"\xff"
"""What guest-sync-delimited puts before its reply."""

_MOST_AT_ONCE = 2048  # tokens; each takes about a microsecond
_MAX_GAP = 8  # bytes of white space between two tokens that are kept as they are
_MEMBERS = {"execute", "arguments", "id"}
_NO_ARGUMENTS: dict[str, Any] = {}


class _Absent:
    """The id of a request that has none; JSON's null is an id."""


ABSENT = _Absent()


class Request(NamedTuple):
    """A well-formed request; whether such a command exists is not known here."""

    execute: str
    arguments: dict[str, Any]
    id: Any = ABSENT


class Fault(NamedTuple):
    """Bytes that were no request, and what to answer."""

    error: QgaError
    id: Any = ABSENT


Event = Union[Request, Fault]

_spaces = re.compile(r"[ \t\r\n]*").match


class Decoder:
    """Turns a connection's bytes into events.

    max_message: bytes of all tokens of one message.
    on_drop: where one client's bytes may follow another's, as on a port: a request then ends
        what an earlier client has left unfinished (see `halves`), and this is called.
    """

    def __init__(
        self, max_message: int | None = None, on_drop: Callable[[], None] | None = None
    ) -> None:
        self._on_drop = on_drop
        self._max_message = MAX_MESSAGE if max_message is None else max_message
        self._lexer = lexer.Lexer(min(lexer.MAX_TOKEN, self._max_message + 1))
        self._between = True  # the next byte begins a message or is white space
        self._budget = sys.maxsize  # tokens that may be looked at yet
        self.rest = b""
        """What was received and not looked at yet."""
        self._start_message()

    @property
    def unfinished(self) -> bool:
        """Whether there is half a request."""
        return not self._between

    def reset(self) -> None:
        """Forget half a request, and what was not looked at yet."""
        self.rest = b""
        self._forget_message()

    def receive(
        self, data: bytes, most: int = sys.maxsize, is_piece: bool = True
    ) -> Sequence[Event]:
        """The events that `data` completes, in order.

        most: how many at most, and of not too many tokens; then the bytes behind them are the
            `rest`, and come before any other: with `go_on`.
        is_piece: whether it begins where a piece did when it came.
        """
        events: list[Event] = []
        if self._on_drop and is_piece and not self._between and self._is_ended_by(data):
            self._drop()
        if self._between:
            if len(data) <= _MAX_KNOWN and data in _known:
                return _known[data]
            if data.endswith((b"}", b"\n")) and len(data) <= self._max_message:
                end = _read_whole_requests(data, events, most)
                if end == len(data):
                    _remember(data, events)
                    return events
                data = data[end:]
                if len(events) >= most:
                    self.rest = data
                    return events
        position = 0
        self._budget = sys.maxsize if most == sys.maxsize else _MOST_AT_ONCE
        while position < len(data) and len(events) < most and self._budget > 0:
            position = self._read_tokens(data, position, events, most, is_piece)
        self.rest = data[position:]
        self._between = self._lexer.at_rest and not self._kept
        return events

    def go_on(self, most: int) -> Sequence[Event]:
        """As `receive`, of the rest."""
        data, self.rest = self.rest, b""
        return self.receive(data, most, is_piece=False)

    def _start_message(self) -> None:
        self._kept = bytearray()  # what earlier pieces held of the message
        self._braces = self._brackets = self._tokens = self._size = 0
        self._nesting = bytearray()  # what is open
        self._previous = 0  # kind of the last token
        self._misplaced = 0  # number of the last `{` where no object may stand

    def _forget_message(self) -> None:
        self._lexer.reset()
        self._between = True
        self._start_message()

    def _read_tokens(
        self, data: bytes, origin: int, events: list[Event], most: int, is_piece: bool
    ) -> int:
        """Read from `origin` to the end, or to where to go on: behind the last event that is
        wanted, behind a request that began in a token, or where there were too many tokens.

        Returns how far it came.
        """
        begin = origin  # of the part of `data` that belongs to the message and is not in _kept
        last = origin  # end of the last token
        # The piece, with a message from before.
        goes_on = is_piece and self._tokens > 0 and origin == 0
        for kind, start, end in self._lexer.scan(data, origin):
            self._budget -= 1
            if kind in _MAY_HIDE and (head := self._hidden_beginning(data, kind, begin, end)):
                self._drop()
                self._read_tokens(head, 0, events, most, is_piece=False)
                return end
            if kind == lexer.STRAY:
                error: QgaError | None = jsontext.stray(self._token(data, origin, start, end))
            elif kind == lexer.OVERSIZE:
                error = _limit_exceeded("token size")
            else:
                begin = self._skip_gap(data, origin, begin, last, start)
                error = self._count(kind, end - start)
                if self._misplaced and (head := self._misplaced_beginning(data, begin, end)):
                    self._drop()
                    self._begin_with(head, data[: end - len(head)] if goes_on else b"", events)
                    begin = end
                    goes_on = False
            last = end
            if error is not None:
                events.append(Fault(error))
            elif self._braces < 0 or self._brackets < 0 or not (self._braces or self._brackets):
                self._kept += data[begin:end]
                events.append(_event(self._kept))
            elif self._budget > 0 or end == len(data):
                continue
            else:
                self._kept += data[begin:end]
                self._lexer.stop_after(kind)
                return end
            self._start_message()
            begin = end
            goes_on = False
            if (len(events) >= most or self._budget <= 0) and end < len(data):
                self._lexer.stop_after(kind)
                return end
        request = self._request_on_line(data) if self._on_drop and goes_on else None
        if request is None:
            self._keep_rest(data, origin, begin, last)
            return len(data)
        self._drop()
        events.append(request)
        return len(data)

    def _hidden_beginning(self, data: bytes, kind: int, begin: int, end: int) -> bytes:
        """What a request begins with that the lexer took for a part of a string or number."""
        if not (self._on_drop and self._tokens):
            return b""
        if kind == lexer.KEYWORD and self._previous == lexer.STRING:
            return halves.beginning_in_string(self._tail(data, begin, end))
        return halves.beginning_at(data, end - 1) if kind == lexer.STRAY else b""

    def _drop(self) -> None:
        """Forget the message, for another has begun."""
        self._forget_message()
        if self._on_drop:
            self._on_drop()

    def _misplaced_beginning(self, data: bytes, begin: int, end: int) -> bytes:
        """What a request begins with that stands where no object may."""
        if self._tokens != self._misplaced + 2:
            return b""
        return halves.beginning_at_end(self._tail(data, begin, end))

    def _is_ended_by(self, data: bytes) -> bool:
        """Whether a piece begins with a request that can be no part of what is unfinished."""
        if not halves.begins_with_request(data):
            return False
        return self._lexer.breaks_at_object or (self._lexer.at_rest and not self._takes_object())

    def _request_on_line(self, data: bytes) -> Request | None:
        """The request that a piece is as a whole, which is a line."""
        if self._lexer.unfinished or not halves.is_line_of_request(data):
            return None
        return _request_in(data)

    def _begin_with(self, head: bytes, before: bytes, events: list[Event]) -> None:
        """Begin a message with `{`, the name of a member and `:`.

        before: what came before it, of this piece; as a whole it may be a request, too.
        """
        request = _request_in(before)
        if request is not None:
            events.append(request)
        self._start_message()
        for kind in (_OPEN_BRACE, lexer.STRING, _COLON):
            self._count(kind, 0)
        self._kept += head
        self._size = len(head)

    def _tail(self, data: bytes, begin: int, end: int) -> bytes:
        """The end of the message up to `end`, as much as a beginning of a request may have."""
        most = halves.MAX_BEGINNING
        return bytes(self._kept[-most:]) + data[max(begin, end - most) : end]

    def _token(self, data: bytes, origin: int, start: int, end: int) -> bytes:
        """The bytes of a token that may have begun in an earlier piece."""
        if start >= origin:
            return data[start:end]
        return bytes(self._kept[start - origin :]) + data[origin:end]

    def _count(self, kind: int, length: int) -> QgaError | None:
        """Take in a token; the error when it is one too many."""
        self._tokens += 1
        if kind == _OPEN_BRACE:
            if self._on_drop and not self._takes_object():
                self._misplaced = self._tokens
            self._braces += 1
            self._nesting.append(kind)
        elif kind == _CLOSE_BRACE:
            self._braces -= 1
            del self._nesting[-1:]
        elif kind == _OPEN_BRACKET:
            self._brackets += 1
            self._nesting.append(kind)
        elif kind == _CLOSE_BRACKET:
            self._brackets -= 1
            del self._nesting[-1:]
        self._previous = kind
        self._size += length
        if self._size > self._max_message:
            return _limit_exceeded("token size")
        if self._tokens > MAX_TOKENS:
            return _limit_exceeded("token count")
        if self._braces + self._brackets > MAX_DEPTH:
            return _limit_exceeded("nesting depth")
        return None

    def _takes_object(self) -> bool:
        """Whether an object may stand here."""
        if self._previous == _COMMA:
            return self._nesting[-1:] == b"["
        return self._previous in (0, _COLON, _OPEN_BRACKET)

    def _skip_gap(self, data: bytes, origin: int, begin: int, last: int, start: int) -> int:
        """Leave white space out of the message where there is much of it.

        Returns the new beginning of what is not kept yet.
        """
        if start < origin:
            return begin
        if self._tokens == 0:
            return start
        if start - last > _MAX_GAP:
            self._kept += data[begin:last] + b" "
            return start
        return begin

    def _keep_rest(self, data: bytes, origin: int, begin: int, last: int) -> None:
        if self._lexer.unfinished:
            start = len(data) - self._lexer.unfinished
            begin = self._skip_gap(data, origin, begin, last, start)
            self._kept += data[begin:]
        elif self._tokens:
            self._kept += data[begin:last]
            if self._kept[-1:] != b" ":  # of white space in many pieces one byte is kept
                self._kept += b" "


# Tokens by which one sees that the lexer took a request's beginning for a part of what came before.
_MAY_HIDE = bytes([lexer.KEYWORD, lexer.STRAY])
_OPEN_BRACE, _CLOSE_BRACE, _OPEN_BRACKET, _CLOSE_BRACKET, _COMMA, _COLON = b"{}[],:"


def _limit_exceeded(what: str) -> QgaError:
    return QgaError(f"JSON {what} limit exceeded")


# Monitoring asks the same few questions for ever: their bytes, and what they were read as.
_known: dict[bytes, tuple[Request]] = {}
_MOST_KNOWN = 64
_MAX_KNOWN = 128  # bytes of one


def _request_in(text: bytes) -> Request | None:
    """The request that a text is as a whole; None for any other text."""
    if not halves.begins_with_request(text):
        return None
    decoder = Decoder()
    events = decoder.receive(text)
    is_whole = len(events) == 1 and not decoder.unfinished
    return events[0] if is_whole and isinstance(events[0], Request) else None


def _remember(data: bytes, events: list[Event]) -> None:
    """Know a request by its bytes, where it has nothing that a handler could change."""
    if len(data) > _MAX_KNOWN or len(events) != 1:
        return
    request = events[0]
    if type(request) is Request and not request.arguments and request.id is ABSENT:
        if len(_known) == _MOST_KNOWN:
            _known.clear()
        _known[data] = (request,)


def _read_whole_requests(data: bytes, events: list[Event], most: int) -> int:
    """Read requests off the front of `data` with Python's reader; returns where they end."""
    if not jsontext.is_plain(data) or jsontext.may_be_too_deep(data):
        return 0
    if len(data) >= bulk.LONG:
        try:
            events.append(_request(bulk.read_message(data)))
            return len(data)
        except (ValueError, RecursionError):
            pass
    text = data.decode("ascii")
    position, end = 0, len(text)
    while position < end and len(events) < most:
        if text[position] != "{":
            spaces = _end_of_space(text, position)
            if spaces == position:
                break
            position = spaces
            continue
        try:
            value, position = jsontext.read_plainly(text, position)
        except (ValueError, RecursionError):
            break
        events.append(_request(value))
        if text.startswith("\n", position):  # as nearly all requests end
            position += 1
    return position


def _end_of_space(text: str, position: int) -> int:
    return _spaces(text, position).end()  # type: ignore[union-attr]


def _event(raw: bytearray) -> Event:
    """What a message with balanced brackets says."""
    try:
        return _request(bulk.read(raw))
    except QgaError as error:
        # Without its traceback, which would keep the message alive through a cycle of frames.
        return Fault(type(error)(error.desc))


def _request(value: Any) -> Event:
    """Check the envelope."""
    if type(value) is not dict:
        return Fault(QgaError("QMP input must be a JSON object"))
    name = value.get("execute")
    arguments = value.get("arguments", _NO_ARGUMENTS)
    if type(name) is str and type(arguments) is dict and value.keys() <= _MEMBERS:
        return Request(name, arguments, value.get("id", ABSENT))
    return Fault(_envelope_error(value, arguments), value.get("id", ABSENT))


def _envelope_error(value: dict[str, Any], arguments: Any) -> QgaError:
    if type(value.get("execute", "")) is not str:
        return QgaError("QMP input member 'execute' must be a string")
    if type(arguments) is not dict:
        return QgaError("QMP input member 'arguments' must be an object")
    for member in value:
        if member not in _MEMBERS:
            return QgaError(f"QMP input member '{member}' is unexpected")
    return QgaError("QMP input lacks member 'execute'")


def encode_error(error: QgaError, id: Any = ABSENT) -> bytes:
    """The reply line of a request that failed."""
    body = jsonwriter.write({"class": error.error_class, "desc": error.desc})
    return f'{{"error": {body}{_encode_id(id)}}}\n'.encode("ascii")


def encode_return(result: Any, id: Any = ABSENT, with_numbers: bool = False) -> list[Part]:
    """The reply line of a request that succeeded; a Payload may be a member of `result`.

    with_numbers: the result may hold floats.
    """
    if result is None:
        if id is ABSENT:
            return _NO_RESULT
        result = {}
    if type(result) is dict and Payload in map(type, result.values()):
        return _encode_with_payload(result, id)
    text = jsonwriter.write_exactly(result) if with_numbers else jsonwriter.write(result)
    return [f'{{"return": {text}{"" if id is ABSENT else _encode_id(id)}}}\n'.encode("ascii")]


_NO_RESULT: list[Part] = [b'{"return": {}}\n']


def _encode_with_payload(result: dict[str, Any], id: Any) -> list[Part]:
    parts: list[Part] = []
    text = '{"return": '
    separator = "{"
    for member, value in result.items():
        text += separator + jsonwriter.write(member) + ": "
        if type(value) is Payload:
            parts += [f'{text}"'.encode("ascii"), value]
            text = '"'
        else:
            text += jsonwriter.write(value)
        separator = ", "
    parts.append(f"{text}}}{_encode_id(id)}}}\n".encode("ascii"))
    return parts


def _encode_id(id: Any) -> str:
    if id is ABSENT:
        return ""
    return f', "id": {_write_id(id)}'


def _write_id(id: Any) -> str:
    """Any JSON value, quickly where it holds no floats: those have a point or an exponent."""
    try:
        text = jsonwriter.write(id)
        if type(id) in (str, int) or ("." not in text and "e" not in text):
            return text
    except (ValueError, RecursionError):  # a double for JSON's inf, or very deep
        pass
    return jsonwriter.write_exactly(id)
