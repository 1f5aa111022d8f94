"""Values drawn from bytes: the same bytes draw the same values, and end in the simplest ones."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, Literal, TypeVar, get_args, get_origin

from qga.plugin import schema
from qga.plugin.schema import UInt64
from qga.wire.payload import Base64, Payload

T = TypeVar("T")

INTEGERS = (0, 1, -1, 255, 4096, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
TOO_BIG = (2**64, -(2**63) - 1)  # doubles on the wire
TEXTS = ("", "a", "/etc/passwd", "r+b", "set", "\0", "\x7f", "\u20ac", "\U0001f600", "a" * 70)
DEPTH = 4

members = lru_cache(maxsize=None)(schema.members)

# Noncharacters, and halves of a pair of surrogates: not in any text of the wire.
_NONCHARACTERS = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


def has_noncharacter(text: str) -> bool:
    return not text.isascii() and _NONCHARACTERS.search(text) is not None


class Draw:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """The next byte; 0 when there are none left."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def bytes(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length
        return self._data[start : self._at]

    def of(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def text(self) -> str:
        length = self.byte() % 24
        if length < len(TEXTS):
            return TEXTS[length]
        return _NONCHARACTERS.sub("", self.bytes(length - len(TEXTS)).decode("utf-8", "ignore"))

    def integer(self, last: int = 2**64 - 1) -> int:
        kind = self.byte() % (len(INTEGERS) + 2)
        if kind < len(INTEGERS):
            return min(INTEGERS[kind], last)
        return int.from_bytes(self.bytes(kind - len(INTEGERS) + 1), "big", signed=True)

    def double(self) -> float:
        value: float = struct.unpack("<d", self.bytes(8).ljust(8, b"\0"))[0]
        return value if isfinite(value) else 0.5

    def json(self, depth: int = DEPTH) -> Any:
        """Any value that the wire can carry."""
        kind = self.byte() % (9 if depth else 7)
        if kind == 0:
            return None
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self.integer()
        if kind == 4:
            return float(self.of(TOO_BIG)) if self.byte() % 4 == 0 else self.double()
        if kind in (5, 6):
            return self.text()
        if kind == 7:
            return [self.json(depth - 1) for _ in range(self.byte() % 4)]
        return {self.text(): self.json(depth - 1) for _ in range(self.byte() % 4)}

    def roughly(self, annotation: Any) -> Any:
        """A value of the type, more often than not down to its last part."""
        return self.json() if self.byte() % 16 == 15 else self._of_type(annotation, self.roughly)

    def exactly(self, annotation: Any) -> Any:
        """A value of the type, as a handler returns it."""
        if annotation in (None, type(None)):
            return None
        return self._of_type(annotation, self.exactly)

    def _of_type(self, annotation: Any, part: Any) -> Any:
        if annotation in _SIMPLE:
            return _SIMPLE[annotation](self)
        if get_origin(annotation) is Literal:
            return self.of(get_args(annotation))
        if get_origin(annotation) is list:
            return [part(get_args(annotation)[0]) for _ in range(self.byte() % 4)]
        if schema.is_struct(annotation):
            return {
                name: part(kind)
                for name, (kind, required) in members(annotation).items()
                if (required and part == self.exactly) or self.byte() % 8 < 7
            }
        return part(self.of(get_args(annotation)))  # an alternate


_SIMPLE: dict[Any, Any] = {
    int: lambda draw: draw.integer(2**63 - 1),
    UInt64: lambda draw: draw.integer() % 2**64,
    str: Draw.text,
    Base64: Draw.text,
    bool: lambda draw: draw.byte() % 2 == 1,
    float: Draw.double,
    Payload: lambda draw: Payload(draw.bytes(draw.byte() % 8)),
    Any: Draw.json,
}
