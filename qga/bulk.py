"""Messages whose bulk is one string: a request that writes to a file, in most cases.

The lexer has looked at each byte of it. So the reader is given only what is around the string,
and the string is cut out as it is: for 60 MB that is one pass and one copy less.
"""

from __future__ import annotations

from typing import Any

from qga import jsontext

_LONG = 64 * 1024  # bytes of a message
_MOST_STRINGS = 16  # that are looked at for one that is long

# In place of the string: half a pair of surrogates, which no message without escapes can hold.
_PLACEHOLDER, _STAND_IN = rb'"\udfff"', "\udfff"


def read(raw: bytearray) -> Any:
    """As `jsontext.read`: `raw` has complete tokens and balanced brackets."""
    if len(raw) >= _LONG:
        try:
            return _read_around_bulk(raw)
        except (ValueError, RecursionError):
            pass
    return jsontext.read(raw)


def _read_around_bulk(raw: bytearray) -> Any:
    """Raises ValueError where no argument makes up the bulk of the message."""
    begin, end = _bulk(raw)
    text = str(memoryview(raw)[begin + 1 : end], "ascii")
    around = raw[:begin] + _PLACEHOLDER + raw[end + 1 :]
    value, stop = jsontext.read_plainly(around.decode("ascii"), 0)
    arguments = value.get("arguments") if type(value) is dict else None
    if stop == len(around) and type(arguments) is dict:
        for name, given in arguments.items():
            if given == _STAND_IN:
                arguments[name] = text
                return value
    raise ValueError("the bulk is no argument")


def _bulk(raw: bytearray) -> tuple[int, int]:
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
