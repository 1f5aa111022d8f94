"""Texts from guests and users: made harmless for a terminal, and read as numbers. Texts of errors.

What must stay true: no text of an error has the form that Python gives it (`[Errno 12] …`). Only a
fault of this program has the name of its class, and an error without a text.
"""

from __future__ import annotations

import os
from errno import ENOMEM

from qga.client.errors import AgentError

# Python raises these, among others, where no thread can be started and no module be read.
WITHOUT_FAULT = (RuntimeError, ImportError, EOFError)


def printable(text: str) -> str:
    """`text` on one line, with escapes for characters that do not print."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def reason_of(error: BaseException) -> str:
    """Why something has failed: the system's text, after the name of the file if there is one."""
    if isinstance(error, AgentError):
        return str(error)
    if isinstance(error, OSError):
        # An error of a call with a descriptor has its number in place of a name.
        named = isinstance(error.filename, (str, bytes)) and error.filename and error.strerror
        name = f"{os.fsdecode(error.filename)}: " if named else ""
        return name + (error.strerror or str(error) or type(error).__name__)
    if isinstance(error, MemoryError):
        return os.strerror(ENOMEM)
    text = str(error)
    if text and type(error) in WITHOUT_FAULT:
        return text
    return ": ".join(filter(None, [type(error).__name__, text]))


def number_in(numbers: range, text: str) -> int | None:
    """The number if the text is one of `numbers` in decimal digits, else None."""
    digits = text.lstrip("0") or text[-1:]
    # For thousands of digits int() takes quadratic time or raises, depending on Python's version.
    fits = text.isascii() and text.isdecimal() and len(digits) <= len(str(numbers[-1]))
    return int(digits) if fits and int(digits) in numbers else None
