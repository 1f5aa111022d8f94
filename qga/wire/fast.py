"""Reads requests that arrive whole, as nearly all do, with Python's JSON reader."""

from __future__ import annotations

from qga.stdlib import expression
from qga.wire import bulk, jsontext
from qga.wire.protocol import ABSENT, Request, to_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.wire.protocol import Event

known: dict[bytes, tuple[Request]] = {}
"""Requests that monitoring repeats: the line of each, and its parsed form."""

MAX_KNOWN = 128
"""Longest request that is remembered, in bytes."""

MOST_KNOWN = 64
"""Requests that are remembered."""

_SPACES = expression(r"[ \t\r\n]*")


def read(data: bytes, events: list[Event], most: int) -> int:
    """Read at most this many requests from the front of `data`, and return where they end.

    Stops before anything that needs QEMU's lexer and grammar.
    """
    if not data.endswith((b"}", b"\n")):
        return 0
    if len(data) > jsontext.MAX_DEPTH and jsontext.may_be_too_deep(data):
        return 0
    if not jsontext.is_plain(data):
        return _read_unicode(data, events, most)
    if len(data) >= bulk.LONG:
        try:
            events.append(to_event(bulk.read_message(data)))
            return len(data)
        except (ValueError, RecursionError):
            pass
    end = _read_text(data.decode("ascii"), events, most)
    if end == len(data) <= MAX_KNOWN and len(events) == 1:
        _remember(data, events[0])
    return end


def _read_unicode(data: bytes, events: list[Event], most: int) -> int:
    try:
        text = data.decode()
    except ValueError:
        return 0
    if not jsontext.is_plain_text(data, text):
        return 0
    return len(text[: _read_text(text, events, most)].encode())


def _remember(line: bytes, request: Event) -> None:
    """Remember a request by its line if it has nothing that a handler could modify."""
    if type(request) is not Request or request.arguments or request.id is not ABSENT:
        return
    if line.find(b"\n") == len(line) - 1:
        if len(known) == MOST_KNOWN:
            known.clear()
        known[line] = (request,)


def _read_text(text: str, events: list[Event], most: int) -> int:
    position, end = 0, len(text)
    while position < end and len(events) < most:
        if text[position] != "{":
            spaces = _SPACES.match(text, position).end()  # type: ignore[union-attr]
            if spaces == position:
                break
            position = spaces
            continue
        try:
            value, position = jsontext.read_plainly(text, position)
        except (ValueError, RecursionError):
            break
        events.append(to_event(value))
        if text.startswith("\n", position):  # as nearly all requests end
            position += 1
    return position
