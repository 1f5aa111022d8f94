"""Suggestions for misspelt words.

Not by difflib, which rates short words too leniently ("read" and "road"): a suggestion about a rule
stops the agent.
"""

from __future__ import annotations

from collections.abc import Iterable

_MARKS = str.maketrans("", "", "-_. \t")


def nearest(word: str, known: Iterable[str], long: int = 8) -> str | None:
    """The known word within one edit of `word`, or two edits if either has `long` letters or more.

    Case, hyphens, underscores, dots and blanks are ignored. An edit adds, drops or replaces a
    letter, or swaps two adjacent ones.
    """
    bare = _bare(word)
    best, least = None, 3
    for each in known:
        other = _bare(each)
        edits = 1 if max(len(bare), len(other)) < long else 2
        if abs(len(bare) - len(other)) <= edits:
            distance = _distance(bare, other)
            if distance <= edits and distance < least:
                best, least = each, distance
    return best


def _bare(word: str) -> str:
    return word.lower().translate(_MARKS)


def _distance(a: str, b: str) -> int:
    """The number of edits between two words (optimal string alignment distance)."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]
