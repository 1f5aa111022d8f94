"""Texts from guests, made harmless for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, with escapes for characters that do not print."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
