"""Messages in one piece that consist mostly of one string, such as requests that write to a file.

Such a string contains no escapes, and a search for control characters is faster than a JSON reader.
So the string is taken as it is, and the reader gets only the rest of the message.
"""

from __future__ import annotations

from qga.wire import jsontext
from qga.wire.incoming import Incoming
from qga.wire.lexer import has_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qga.wire.payload import Base64

LONG = 16 * 1024
"""Bytes of a message for which this pays."""

_MOST_STRINGS = 16  # that are looked at for one that is long

# In place of the string: half a pair of surrogates, which no message without escapes can hold.
_PLACEHOLDER, _STAND_IN = rb'"\udfff"', "\udfff"


def read_message(data: bytes) -> Any:
    """The value of `data`, whose tokens have not been read yet.

    Raises ValueError or RecursionError where it is no message whose bulk is one argument.
    """
    begin, end = _bulk(data)
    around = data[:begin] + _PLACEHOLDER + data[end + 1 :].rstrip(b"\n")
    return _read_around_bulk(around, _string(data[begin + 1 : end]))


def _string(text: bytes) -> str | Base64:
    """The string with this text, without escapes. Raises ValueError for control characters."""
    incoming = Incoming()
    if incoming.take(text, 0):
        return incoming.joined("")
    if has_control(text):
        raise ValueError("a string with control characters")
    return text.decode("ascii")


def _read_around_bulk(around: bytes, bulk: str | Base64) -> Any:
    """Put the bulk in its place. Raises ValueError if that is not an argument."""
    value, stop = jsontext.read_plainly(around.decode("ascii"), 0)
    arguments = value.get("arguments") if type(value) is dict else None
    if stop == len(around) and type(arguments) is dict:
        for name, given in arguments.items():
            if given == _STAND_IN:
                arguments[name] = bulk
                return value
    raise ValueError("the bulk is no argument")


def _bulk(raw: bytes | bytearray) -> tuple[int, int]:
    """Where the quotes are of a string that is more than half of `raw`; else ValueError."""
    if b"\\" in raw:
        raise ValueError("escapes make quotes ambiguous")
    end = -1
    for _ in range(_MOST_STRINGS):
        begin = raw.index(b'"', end + 1)
        end = raw.index(b'"', begin + 1)
        if (end - begin) * 2 > len(raw):
            return begin, end
    raise ValueError("no string stands out")
