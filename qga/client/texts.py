"""Texts from guests and users: made harmless for a terminal, and read as numbers."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, with escapes for characters that do not print."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def number_in(numbers: range, text: str) -> int | None:
    """The number if the text is one of `numbers` in decimal digits, else None."""
    digits = text.lstrip("0") or text[-1:]
    # For thousands of digits int() takes quadratic time or raises, depending on Python's version.
    fits = text.isascii() and text.isdecimal() and len(digits) <= len(str(numbers[-1]))
    return int(digits) if fits and int(digits) in numbers else None
