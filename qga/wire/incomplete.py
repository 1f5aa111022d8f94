"""Incomplete requests, and how the request after one is found.

Some hosts send a part of a request and leave: Proxmox VE counts characters instead of bytes, so it
cuts off requests that are not ASCII. On a port, what the next connection sends looks like the rest
of it. So a request that begins inside an unfinished value ends that value. The value is dropped
without a reply: its client is gone, and the next one would take the reply for its own.

What must stay true: no valid JSON is mistaken for such a beginning. It is one of these:

- `{`, the name of a member of requests and `:`, where the grammar has no place for an object.
- `{"` and such a name, where `"` ends a string: no bare word follows a string.
- `{` and a member of requests within a number such as `-` or `1e`, which needs a digit.
- Where an object is valid (after `:`, `[`, or a comma in a list), an argument or an id may also
  contain a member `execute`. There it counts as a request only if it is a separate piece that ends
  with its line, or is followed by another request by the first rule. So a value of several lines
  that comes in one piece is never cut. Sent line by line, it is cut at such an object that is alone
  on a line, without a comma; no command takes one.
"""

from __future__ import annotations

from qga.stdlib import expression
from qga.wire.lexer import (
    CLOSE_BRACE,
    CLOSE_BRACKET,
    COLON,
    COMMA,
    KEYWORD,
    OPEN_BRACE,
    OPEN_BRACKET,
    STRAY,
    STRING,
)

TOKENS = 3
"""Tokens by which a request is known: `{`, the name of a member and `:`."""

MAX_BEGINNING = 64
"""Bytes searched for the beginning of a request, including white space."""

_MAX_END = 8  # bytes of a brace and the white space behind it

_MEMBER = rb"""(?:"(?:arguments|execute|id)"|'(?:arguments|execute|id)')"""
_AT_END = expression(rb"\{[ \t\r\n]*" + _MEMBER + rb"[ \t\r\n]*:\Z")
_AT = expression(rb"\{[ \t\r\n]*" + _MEMBER + rb"[ \t\r\n]*:")
_IN_STRING = expression(rb"\{[ \t]*\" ?(arguments|execute|id)\Z")
_AT_START = expression(rb"[ \t\r\n]*\{[ \t\r\n]*\"(?:arguments|execute|id)\"[ \t\r\n]*:")


def beginning_at_end(text: bytes) -> bytes:
    """The beginning of a request that `text` ends with, or nothing."""
    found = _AT_END.search(text)
    return found.group() if found else b""


def beginning_in_string(text: bytes) -> bytes:
    """The same where its first quotation mark ends a string, and a bare word is at the end."""
    found = _IN_STRING.search(text)
    return b'{"' + found[1] if found else b""


def beginning_at(data: bytes, place: int) -> bytes:
    """The first byte of a request that begins at `place`, or nothing."""
    return data[place : place + 1] if _AT.match(data, place) else b""


def begins_with_request(piece: bytes) -> bool:
    """Whether a piece begins as a request does."""
    return _AT_START.match(piece) is not None


def is_line_of_request(piece: bytes) -> bool:
    """Whether a piece ends where the line of a request would."""
    return piece.endswith(b"\n") and piece[-_MAX_END:].rstrip().endswith(b"}")


class Watch:
    """Follows the tokens of a message to find the beginning of a request among them."""

    def __init__(self) -> None:
        self.start_message()

    def start_message(self) -> None:
        self._tokens = 0
        self._previous = 0  # kind of the last token
        self._nesting = bytearray()  # what is open
        self._misplaced = 0  # number of the last `{` where no object may stand
        self._before = b""  # the end of what earlier pieces held

    def hidden_beginning(self, kind: int, data: bytes, begin: int, end: int) -> bytes:
        """What a request begins with that the lexer took for a part of a string or number.

        begin: where the message is, in `data`.
        """
        if not self._tokens:
            return b""
        if kind == KEYWORD and self._previous == STRING:
            return beginning_in_string(self._tail(data, begin, end))
        return beginning_at(data, end - 1) if kind == STRAY else b""

    def misplaced_beginning(self, kind: int, data: bytes, begin: int, end: int) -> bytes:
        """Take a token; what a request begins with that it completes where no object may stand."""
        self._tokens += 1
        if kind == OPEN_BRACE:
            if not self.takes_object:
                self._misplaced = self._tokens
            self._nesting.append(kind)
        elif kind == OPEN_BRACKET:
            self._nesting.append(kind)
        elif kind in (CLOSE_BRACE, CLOSE_BRACKET):
            del self._nesting[-1:]
        self._previous = kind
        if not self._misplaced or self._tokens != self._misplaced + TOKENS - 1:
            return b""
        return beginning_at_end(self._tail(data, begin, end))

    def keep(self, data: bytes, begin: int) -> None:
        """Keep the end of a message that continues in the next piece."""
        self._before = (self._before + data[max(begin, len(data) - MAX_BEGINNING) :])[
            -MAX_BEGINNING:
        ]

    @property
    def takes_object(self) -> bool:
        """Whether an object is valid here."""
        if self._previous == COMMA:
            return self._nesting[-1:] == b"["
        return self._previous in (0, COLON, OPEN_BRACKET)

    def _tail(self, data: bytes, begin: int, end: int) -> bytes:
        """The end of the message up to `end`, as much as a beginning of a request may have."""
        start = max(begin, end - MAX_BEGINNING)
        return self._before + data[start:end] if start == begin else data[start:end]
