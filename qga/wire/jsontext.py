"""JSON as QEMU reads it, where Python's own reader differs.

`read_plainly` is Python's fast C reader, for texts that both read in the same way. It raises
ValueError for all others, which are read token by token, with QEMU's errors.
"""

from __future__ import annotations

from _json import make_scanner, scanstring
from math import isinf

from qga.errors import QgaError
from qga.stdlib import expression
from qga.wire import lexer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_DEPTH = 1024
"""Levels of nesting (QEMU's limit)."""

_MAX_MESSAGE = 1023  # bytes of an error's text, in QEMU's parser

_REPLACEMENT = "\ufffd"
_NONCHARACTER = expression(
    "[\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_SEQUENCE = expression(
    rb"[\xc0-\xdf][\x80-\xbf]?|[\xe0-\xef][\x80-\xbf]{0,2}|[\xf0-\xf7][\x80-\xbf]{0,3}"
    rb"|[\xf8-\xfb][\x80-\xbf]{0,4}|[\xfc\xfd][\x80-\xbf]{0,5}|[\x80-\xff]|[\x00-\x7f]+"
)
_ESCAPES = dict(zip(b"bfnrt\"'\\/", "\b\f\n\r\t\"'\\/"))
_KEYWORDS = {b"true": True, b"false": False, b"null": None}


class ParseError(QgaError):
    """The text is not JSON. The message has no position yet."""


def parse_error(text: str) -> ParseError:
    return ParseError(f"JSON parse error, {text}")


def _error_with(before: bytes, token: bytes | bytearray, after: bytes) -> ParseError:
    """The error that shows a token; up to a NUL, as C shows a string."""
    shown = bytes(token[:_MAX_MESSAGE]).split(b"\0", 1)[0]
    return parse_error(decode_leniently((before + shown + after)[:_MAX_MESSAGE]))


def stray(token: bytes | bytearray) -> ParseError:
    """The error for a byte that cannot continue a token."""
    return _error_with(b"stray '", token, b"'")


def decode_leniently(raw: bytes | bytearray) -> str:
    """Decode bytes that may not be UTF-8, with U+FFFD for each invalid sequence."""
    return "".join(_decode_sequence(match.group()) for match in _SEQUENCE.finditer(raw))


def _decode_sequence(raw: bytes) -> str:
    try:
        return _decode_strictly(raw)
    except ValueError:
        return _REPLACEMENT


def _decode_strictly(raw: bytes | bytearray) -> str:
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


def reader(parse_int: Any = int, parse_float: Any = float) -> Callable[[str, int], tuple[Any, int]]:
    """Python's reader of JSON in C, without the package `json`, which takes 0.2 MB.

    Until that is imported, errors of the reader are a SystemError on Python 3.12 and earlier: it
    looks for JSONDecodeError there.
    """

    settings = {
        "strict": True,
        "object_hook": None,
        "object_pairs_hook": _plain_object,
        "array_hook": None,  # since Python 3.15
        "parse_int": parse_int,
        "parse_float": parse_float,
        "parse_constant": _plain_constant,
    }
    scan = make_scanner(type("Settings", (), settings))  # type: ignore[arg-type]

    def read(text: str, position: int) -> tuple[Any, int]:
        try:
            return scan(text, position)
        except (StopIteration, SystemError):
            raise ValueError("no JSON") from None

    return read


read_plainly = reader(_plain_int, _plain_float)
"""`read_plainly(text, position)` reads a value that begins at `position`: (value, end).

Raises ValueError, or RecursionError for about a thousand levels, where QEMU may read the text
otherwise. `text` must be without the traps of `is_plain`, and without noncharacters.
"""

_BACKSLASH = ord("\\")
_UNICODE_TRAP = expression(
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


def is_plain_text(raw: bytes, text: str) -> bool:
    """As `is_plain`, of UTF-8 and the text that it is."""
    return not _has_trap(raw) and not _NONCHARACTER.search(text)


def _has_trap(raw: bytes | bytearray) -> bool:
    return _BACKSLASH in raw and _UNICODE_TRAP.search(raw) is not None


def may_be_too_deep(raw: bytes) -> bool:
    """Whether there are enough brackets for more than MAX_DEPTH levels."""
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


def scalar(kind: int, token: bytes | bytearray) -> Any:
    """The value of a token that is one.

    Raises QgaError with QEMU's text, also for an invalid token.
    """
    if kind == lexer.STRING:
        return string(token)
    if kind == lexer.INTEGER:
        return _integer(token)
    if kind == lexer.FLOAT:
        return _double(token)
    if kind == lexer.KEYWORD:
        word = bytes(token)
        if word in _KEYWORDS:
            return _KEYWORDS[word]
        raise _error_with(b"invalid keyword '", word, b"'")
    raise parse_error("expecting value")


def _integer(token: bytes | bytearray) -> int | float:
    """An int64 or uint64; beyond them a double."""
    if len(token) <= len(str(-(2**63))):
        value = int(token)
        if -(2**63) <= value < 2**64:
            return value
    return _double(token)


def _double(token: bytes | bytearray) -> float:
    value = float(token)
    if isinf(value):
        raise _error_with(b"number out of range '", token, b"'")
    return value


def string(token: bytes | bytearray) -> str:
    """The text of a string token, quotes and escapes included in `token`."""
    if token.isascii() and _BACKSLASH not in token:
        return str(memoryview(token)[1:-1], "ascii")
    if token[0] == ord('"') and is_plain(token):
        try:
            text: str = scanstring(token.decode("ascii"), 1)[0]
            return text
        except (ValueError, SystemError):  # an escape that only QEMU has, or nobody
            pass
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


def _utf8(raw: bytes | bytearray) -> str:
    try:
        return _decode_strictly(raw)
    except ValueError:
        raise parse_error("invalid UTF-8 sequence in string") from None


def _unicode_escape(token: bytes | bytearray, start: int) -> tuple[str, int]:
    """The character of the `\\uXXXX`, or pair of them, at `start`, and where it ends."""
    end = start + 6
    code = _code_unit(token, start)
    if code is not None and 0xD800 <= code < 0xDC00:
        low = _code_unit(token, end)
        if low is not None and 0xDC00 <= low < 0xE000:
            end += 6
            code = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF)
    if code is None or 0xD800 <= code < 0xE000 or _NONCHARACTER.match(chr(code)):
        raise _error_with(b"", token[start:end], b" is not a valid Unicode character")
    return chr(code), end


_CODE_UNIT = expression(rb"\\u([0-9a-fA-F]{4})")


def _code_unit(token: bytes | bytearray, start: int) -> int | None:
    match = _CODE_UNIT.match(token, start)
    return int(match[1], 16) if match else None
