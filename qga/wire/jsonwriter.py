"""JSON as QEMU writes it, where Python's own writer differs.

ASCII only, upper-case hexadecimal escapes, DEL escaped, doubles as C's `%.17g`. No recursion:
a value may be 1024 levels deep.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder
from math import isfinite

from qga.stdlib import expression
from qga.wire.jsontext import decode_leniently

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from typing import Any


def _refuse(value: Any) -> None:
    raise TypeError(f"a result may not contain {type(value).__name__} objects")


# What JSONEncoder.encode makes anew for each value.
_make_chunks = make_encoder(
    None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False
)


_ESCAPED = expression(
    r"(?P<same>(?:\\u[0-9]{4}|\\[^u]){1,1000})"
    r"|\\u(?P<pair>d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})"
    r"|(?P<bytes>(?:\\udc[89a-f][0-9a-f])+)|\\u(?P<unit>[0-9a-f]{4})|\x7f"
)

# Half a pair, and noncharacters.
_NO_CHARACTER = expression(r"d[89ab][37bf]f\\udff[ef]|d[89a-f]..$|fd[de]|fff[ef]")


def write(value: Any) -> str:
    """JSON text of a value without floats."""
    if type(value) is int:
        return str(value)
    text = "".join(_make_chunks(value, 0))
    if "\\u" in text or "\x7f" in text:
        return _with_qemu_escapes(text)
    return text


def _with_qemu_escapes(text: str) -> str:
    changed = text.replace("\\ufffd", "\\uFFFD")
    if changed.count("\\") == changed.count("\\uFFFD") and "\x7f" not in text:
        return changed  # such as the error about 0xFF, with which many clients begin
    return _ESCAPED.sub(_as_qemu_escapes, text)


def _as_qemu_escapes(match: re.Match[str]) -> str:
    if match["same"]:
        return match[0]
    if match["bytes"]:  # bytes of a name that are no UTF-8, as os.fsdecode() has them
        raw = bytes.fromhex(match["bytes"].replace(r"\udc", ""))
        return write(decode_leniently(raw))[1:-1]
    character = match["pair"] or match["unit"]
    if not character:
        return r"\u007F"
    if _NO_CHARACTER.match(character):
        return r"\uFFFD"
    return match[0].upper().replace("U", "u")


def write_exactly(value: Any) -> str:
    """JSON text of any value: floats as `%.17g`, any depth; slower than `write`."""
    text: list[str] = []
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if type(item) is _Punctuation:
            text.append(item)
        elif type(item) is list:
            stack += _reversed_list(item)
        elif type(item) is dict:
            stack += _reversed_dict(item)
        elif type(item) is float or (type(item) is int and not -(2**63) <= item < 2**64):
            text.append(_write_double(item))
        else:
            text.append(write(item))
    return "".join(text)


def _write_double(number: float) -> str:
    if not isfinite(number):
        raise ValueError(f"{number} cannot be represented in JSON")
    return f"{number:.17g}"


class _Punctuation(str):
    """Text that is written unchanged among values."""

    __slots__ = ()


def _reversed_list(items: list[Any]) -> Iterator[Any]:
    yield _Punctuation("]")
    for at in range(len(items) - 1, -1, -1):
        yield items[at]
        yield _Punctuation(", " if at else "[")
    if not items:
        yield _Punctuation("[")


def _reversed_dict(items: dict[str, Any]) -> Iterator[Any]:
    yield _Punctuation("}")
    for at, key in reversed(list(enumerate(items))):
        yield items[key]
        yield _Punctuation((", " if at else "{") + write(key) + ": ")
    if not items:
        yield _Punctuation("{")
