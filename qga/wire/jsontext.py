"""JSON as QEMU reads it, where Python's own reader differs.

`read_plainly` is Python's C reader, fast, for the texts that both read alike; it
raises ValueError for all others, which are `parse`'s, with QEMU's errors, first in reading
order. `read` tries the one, then the other. No recursion: a value may be 1024 levels deep.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from math import isinf
from typing import Any

from qga.errors import QgaError
from qga.wire import lexer

MAX_DEPTH = 1024
"""Levels of nesting (QEMU's limit)."""

_MAX_MESSAGE = 1023  # characters of an error's text, in QEMU's parser

_MAX_STRAY = 64 * 1024  # bytes of a stray token that are shown

_REPLACEMENT = "\ufffd"
_NONCHARACTER = re.compile(
    "[\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_SEQUENCE = re.compile(
    rb"[\xc0-\xdf][\x80-\xbf]?|[\xe0-\xef][\x80-\xbf]{0,2}|[\xf0-\xf7][\x80-\xbf]{0,3}"
    rb"|[\xf8-\xfb][\x80-\xbf]{0,4}|[\xfc\xfd][\x80-\xbf]{0,5}|[\x80-\xff]|[\x00-\x7f]+"
)
_ESCAPES = dict(zip(b"bfnrt\"'\\/", "\b\f\n\r\t\"'\\/"))
_KEYWORDS = {b"true": True, b"false": False, b"null": None}


def parse_error(text: str) -> QgaError:
    return QgaError(f"JSON parse error, {text[:_MAX_MESSAGE]}")


def stray(token: bytes) -> QgaError:
    """The error for a token that cannot go on; shown up to a NUL, as C shows a string."""
    shown = decode_leniently(token[:_MAX_STRAY].split(b"\0", 1)[0])
    return QgaError(f"JSON parse error, stray '{shown}'")


def decode_leniently(raw: bytes) -> str:
    """Text of bytes that may be no UTF-8: U+FFFD for each sequence that is none."""
    return "".join(_decode_sequence(match.group()) for match in _SEQUENCE.finditer(raw))


def _decode_sequence(raw: bytes) -> str:
    try:
        return _decode_strictly(raw)
    except ValueError:
        return _REPLACEMENT


def _decode_strictly(raw: bytes) -> str:
    """UTF-8 without noncharacters, but with C0 80 for NUL; ValueError otherwise."""
    text = raw.replace(b"\xc0\x80", b"\0").decode()
    if not text.isascii() and _NONCHARACTER.search(text):
        raise ValueError("noncharacter")
    return text


# Python's reader, made to refuse what QEMU reads differently.


def _plain_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _plain_int(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("perhaps no int64")
    return int(digits)


def _plain_float(digits: str) -> float:
    value = float(digits)
    if isinf(value) or (digits[digits[0] == "-"] == "0" and "." not in digits):
        raise ValueError("too big, or 0e1, which QEMU reads as two tokens")
    return value


def _plain_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


read_plainly = JSONDecoder(
    object_pairs_hook=_plain_object,
    parse_int=_plain_int,
    parse_float=_plain_float,
    parse_constant=_plain_constant,
).raw_decode
"""`read_plainly(text, position)` reads a value that begins at `position`: (value, end).

Raises ValueError, or RecursionError for about a thousand levels, where QEMU may read the text
otherwise. `text` must be without the traps of `is_plain`, and without noncharacters.
"""

_BACKSLASH = ord("\\")
_UNICODE_TRAP = re.compile(
    rb"\\\\u"  # an escaped backslash, behind which the others would see an escape
    rb"|\\u[fF][dDfF]"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
    rb"|\\u[dD][fF][fF][efEF]"
)


def is_plain(raw: bytes | bytearray) -> bool:
    """Whether Python's reader reads all strings in `raw` as QEMU does, and it is ASCII.

    Not so with escapes that make half a pair of surrogates, or a noncharacter.
    """
    return raw.isascii() and not _has_trap(raw)


def _has_trap(raw: bytes | bytearray) -> bool:
    return _BACKSLASH in raw and _UNICODE_TRAP.search(raw) is not None


def may_be_too_deep(raw: bytes) -> bool:
    """Whether there are brackets enough for more than MAX_DEPTH levels."""
    if len(raw) <= MAX_DEPTH:
        return False
    room = MAX_DEPTH
    for bracket in b"{[":
        # find() passes over a file's text a hundred times faster than count() does.
        at = raw.find(bracket)
        while at >= 0:
            room -= 1
            if room < 0:
                return True
            at = raw.find(bracket, at + 1)
    return False


def read(raw: bytes | bytearray) -> Any:
    """The value of a text whose tokens are complete and whose brackets balance.

    Raises QgaError with QEMU's words.
    """
    try:
        text = raw.decode()
        if not _has_trap(raw) and (raw.isascii() or not _NONCHARACTER.search(text)):
            value, end = read_plainly(text, 0)
            if end == len(text):
                return value
    except (ValueError, RecursionError):
        pass
    return parse(bytes(raw))


# QEMU's reading. What may come next:

_VALUE, _VALUE_OR_END, _COLON, _SEPARATOR_OR_END = range(4)


class _Array:
    closer = ord("]")
    lacks_separator = "expected separator in list"

    def __init__(self) -> None:
        self.value: list[Any] = []

    def take(self, item: Any) -> int:
        self.value.append(item)
        return _SEPARATOR_OR_END


class _Object:
    closer = ord("}")
    lacks_separator = "expected separator in dict"

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self._key: str | None = None

    def take(self, item: Any) -> int:
        """A key and a value by turns; a key is any value to the grammar."""
        if self._key is None:
            if type(item) is not str:
                raise parse_error("key is not a string in object")
            self._key = item
            return _COLON
        if self._key in self.value:
            raise parse_error("duplicate key")
        self.value[self._key] = item
        self._key = None
        return _SEPARATOR_OR_END


def parse(raw: bytes) -> Any:
    """As `read`, by QEMU's grammar alone."""
    stack: list[_Array | _Object] = []
    expects = _VALUE
    for kind, start, end in lexer.Lexer().scan(raw + b" "):  # a space to end a last number
        if expects == _COLON:
            if kind != ord(":"):
                raise parse_error("missing : in object pair")
            expects = _VALUE
            continue
        if expects == _SEPARATOR_OR_END and kind == ord(","):
            expects = _VALUE
            continue
        value: Any
        if expects in (_VALUE_OR_END, _SEPARATOR_OR_END) and kind == stack[-1].closer:
            value = stack.pop().value
        elif expects == _SEPARATOR_OR_END:
            raise parse_error(stack[-1].lacks_separator)
        elif kind in (ord("{"), ord("[")):
            stack.append(_Object() if kind == ord("{") else _Array())
            expects = _VALUE_OR_END
            continue
        else:
            value = _scalar(kind, raw[start:end])
        if not stack:
            return value
        expects = stack[-1].take(value)
    raise parse_error("expecting value")


def _scalar(kind: int, token: bytes) -> Any:
    if kind == lexer.STRING:
        return _string(token)
    if kind == lexer.INTEGER:
        return _integer(token)
    if kind == lexer.FLOAT:
        return _double(token)
    if kind == lexer.KEYWORD:
        if token in _KEYWORDS:
            return _KEYWORDS[token]
        raise parse_error(f"invalid keyword '{token.decode()}'")
    raise parse_error("expecting value")


def _integer(token: bytes) -> int | float:
    """An int64 or uint64; beyond them a double."""
    if len(token) <= len(str(-(2**63))):
        value = int(token)
        if -(2**63) <= value < 2**64:
            return value
    return _double(token)


def _double(token: bytes) -> float:
    value = float(token)
    if isinf(value):
        raise parse_error(f"number out of range '{token.decode()}'")
    return value


def _string(token: bytes) -> str:
    """The text of a string token, quotes and escapes included in `token`."""
    pieces = []
    position, end = 1, len(token) - 1
    while True:
        escape = token.find(b"\\", position)
        pieces.append(_utf8(token[position : escape if escape >= 0 else end]))
        if escape < 0:
            return "".join(pieces)
        letter = token[escape + 1]
        if letter == ord("u"):
            character, position = _unicode_escape(token, escape)
        elif letter in _ESCAPES:
            character, position = _ESCAPES[letter], escape + 2
        else:
            raise parse_error("invalid escape sequence in string")
        pieces.append(character)


def _utf8(raw: bytes) -> str:
    try:
        return _decode_strictly(raw)
    except ValueError:
        raise parse_error("invalid UTF-8 sequence in string") from None


def _unicode_escape(token: bytes, start: int) -> tuple[str, int]:
    """The character of the `\\uXXXX`, or pair of them, at `start`, and where it ends."""
    end = start + 6
    code = _code_unit(token, start)
    if code is not None and 0xD800 <= code < 0xDC00:
        low = _code_unit(token, end)
        if low is not None and 0xDC00 <= low < 0xE000:
            end += 6
            code = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF)
    if code is None or 0xD800 <= code < 0xE000 or _NONCHARACTER.match(chr(code)):
        shown = decode_leniently(token[start:end])
        raise parse_error(f"{shown} is not a valid Unicode character")
    return chr(code), end


_CODE_UNIT = re.compile(rb"\\u([0-9a-fA-F]{4})")


def _code_unit(token: bytes, start: int) -> int | None:
    match = _CODE_UNIT.match(token, start)
    return int(match[1], 16) if match else None
