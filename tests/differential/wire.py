"""Replies in a form in which only the order of members is forgotten.

The original's order is that of a hash table, ours that of the schema. All else on the wire is
compared exactly: a reply that is not written with the house's separators and escapes stays as it
is and so differs.
"""

from __future__ import annotations

import json
import re
from typing import Any


class Number(str):
    """A number as it stood on the wire."""

    __slots__ = ()


def canonical(line: bytes) -> bytes:
    """The line with the members of its objects sorted, if it is JSON in the wire's spelling."""
    prefix, text = (line[:1], line[1:]) if line.startswith(b"\xff") else (b"", line)
    try:
        value = json.loads(text, parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError):
        return line
    if spelled(value).encode() + b"\n" != text:
        return line
    return prefix + spelled(value, ordered=True).encode() + b"\n"


def members(line: bytes) -> list[str]:
    """The names of a reply's members, in order."""
    return list(json.loads(line.lstrip(b"\xff")))


def spelled(value: Any, *, ordered: bool = False) -> str:
    """`value` as a reply spells it."""
    if isinstance(value, dict):
        pairs = sorted(value.items()) if ordered else value.items()
        inside = (f"{quoted(k)}: {spelled(v, ordered=ordered)}" for k, v in pairs)
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spelled(v, ordered=ordered) for v in value) + "]"
    if isinstance(value, Number):
        return str(value)
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def quoted(text: str) -> str:
    spelled_by_python = json.dumps(text).replace("\x7f", "\\u007f")
    if "\\u" not in spelled_by_python:  # spares long texts a slow search
        return spelled_by_python
    return ESCAPE.sub(upper_case, spelled_by_python)


ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*\\u)([0-9a-f]{4})")


def upper_case(escape: re.Match[str]) -> str:
    return escape[1] + escape[2].upper()
