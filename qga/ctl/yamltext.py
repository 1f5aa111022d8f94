"""Values of JSON as YAML in block style.

Text that YAML 1.1 or 1.2 could read as another type is quoted, as in JSON. PyYAML would be one more
package on each host, for one output format; the tests read everything with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+-]+)*")
# Characters of a key that has its value on the same line (YAML 1.2, 7.4.2).
LONGEST_KEY = 1000
RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def yaml(value: Any) -> str:
    """A document, without the end of its last line."""
    return "\n".join(_lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            head = _scalar(str(key))
            if len(head) > LONGEST_KEY:
                yield f"? {head}"
                head = ""
            yield from _entry(f"{head}:", each, isinstance(each, dict))
    elif isinstance(value, (list, tuple)) and value:
        for each in value:
            # A list within a list, and a table in one, begin on the line of the dash.
            first, *rest = _lines(each)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(head: str, value: Any, indented: bool) -> Iterator[str]:
    if not isinstance(value, (dict, list, tuple)) or not value:
        yield f"{head} {_scalar(value)}"
        return
    yield head
    yield from (f"  {line}" if indented else line for line in _lines(value))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        is_plain = PLAIN.fullmatch(value) and value.lower() not in RESERVED
        return value if is_plain else _quoted(value)
    if isinstance(value, float) and "e" in repr(value):
        mantissa, _, exponent = repr(value).partition("e")
        # YAML 1.1 takes 1e+22 for text.
        return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{int(exponent):+03d}"
    return json.dumps(value)


def _quoted(text: str) -> str:
    """Escapes of JSON but for surrogate pairs, which YAML does not join."""
    return (
        "".join(
            f"\\U{ord(char):08x}" if ord(char) > 0xFFFF else json.dumps(char)[1:-1] for char in text
        )
        .join('""')
        .replace("\x7f", "\\x7f")
    )
