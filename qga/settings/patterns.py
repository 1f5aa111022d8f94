"""Patterns in rules: for paths, for programs with their arguments, and for names.

In a path, `*` and `?` match anything but `/`, `**` matches anything, `[abc]` and `[!abc]` match one
character, and a pattern that ends in `/` matches everything below. A leading dot is not special.

A rule for a program is a pattern for its path followed by a pattern for each argument, separated
into words as in a shell: quotes keep blanks and `;` together, and wildcards inside them are taken
literally. In arguments `*` also matches `/`. Without patterns for arguments any arguments match,
`""` alone matches none, and `...` as the last word matches any further arguments.

Patterns match whole texts. The caller must pass real paths, without `..` and symbolic links.

What must stay true: matching takes a bounded time, whatever the text is, because `re` keeps all
other threads waiting. A text that is longer than the kernel takes matches nothing. In a shorter one
each wildcard is tried once: what follows a wildcard is taken where it is found first, and never
looked for again (`_joined`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Optional

from qga.records import NamedTuple
from qga.settings.trust import LONGEST_PATH

_WORD = re.compile(r"""(?:[^\s;'"]|'[^']*'|"[^"]*")+""")
_RULE = re.compile(r"""(?:[^;'"]|'[^']*'|"[^"]*")+""")
# As in glob(7), a `]` right after `[` or `[!` is a member.
_WILDCARD = r"\*\*|\*|\?|\[!?\]?[^\]]*\]"
_PIECE = re.compile(rf"""(?P<quoted>'[^']*'|"[^"]*")|(?P<glob>{_WILDCARD}|[^'"])""", re.DOTALL)
_UNQUOTED = re.compile(rf"(?P<quoted>(?!))|(?P<glob>{_WILDCARD}|.)", re.DOTALL)
_MEMBER = re.compile("(.)-(.)|(.)", re.DOTALL)

LONGEST_NAME = 255  # LOGIN_NAME_MAX of glibc's <bits/local_lim.h>, without the NUL
LONGEST_ARGUMENT = 32 * os.sysconf("SC_PAGE_SIZE") - 1  # MAX_ARG_STRLEN of execve(2)
"""Characters; each has at least a byte."""

_MORE = "..."
_NOTHING = ('""', "''")


class Program(NamedTuple):
    """A rule for a program. `arguments` None matches any; `more`: any may follow."""

    path: re.Pattern[str]
    arguments: Optional[tuple[re.Pattern[str], ...]]
    more: bool

    def allows(self, path: str, arguments: Sequence[str]) -> bool:
        if not self.path.fullmatch(path):
            return False
        if self.arguments is None:
            return True
        expected = len(self.arguments)
        if len(arguments) < expected or (len(arguments) > expected and not self.more):
            return False
        return all(map(re.Pattern.fullmatch, self.arguments, arguments))


def compile_path(text: str) -> re.Pattern[str]:
    """Compile a pattern for paths. Raises ValueError if no real path could match it."""
    return _compile_path(text, text, _UNQUOTED)


def compile_name(text: str) -> re.Pattern[str]:
    """Compile a pattern for names, such as those of accounts."""
    return _compile(text, ".", LONGEST_NAME, _UNQUOTED)


def compile_program(text: str) -> Program:
    """Compile a rule for a program. Raises ValueError."""
    if _unquoted_rest(_RULE, text):
        raise ValueError(f"'{text}' has an unclosed quote")
    program, *words = _WORD.findall(text) or [""]
    more = words[-1:] == [_MORE]
    if more:
        words.pop()
    path = _compile_path(_plain(program), program, _PIECE)
    if not words and not more:
        return Program(path, None, True)
    if len(words) == 1 and words[0] in _NOTHING and not more:
        words = []
    arguments = tuple(_compile(word, ".", LONGEST_ARGUMENT, _PIECE) for word in words)
    return Program(path, arguments, more)


def split_rules(text: str) -> list[str]:
    """Split a list of rules at each `;` outside quotes. Raises ValueError for an open quote."""
    if _unquoted_rest(_RULE, text):
        raise ValueError(f"'{text}' has an unclosed quote")
    return _RULE.findall(text)


def _unquoted_rest(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub("", text).replace(";", "")


def _plain(word: str) -> str:
    return word.replace("'", "").replace('"', "")


def _compile_path(text: str, word: str, pieces: re.Pattern[str]) -> re.Pattern[str]:
    if not text.startswith("/"):
        raise ValueError(f"'{text}' is not an absolute path; it must begin with /")
    steps = text[1:].removesuffix("/").split("/")
    if text != "/" and any(step in ("", ".", "..") for step in steps):
        raise ValueError(f"'{text}' cannot match: real paths contain no '//', '/./' or '/../'")
    return _compile(f"{word}**" if text.endswith("/") else word, "[^/]", LONGEST_PATH, pieces)


def _compile(
    word: str, any_character: str, longest: int, pieces: re.Pattern[str]
) -> re.Pattern[str]:
    numbers = count()
    # By `**`, each part by `*`: after a `**` the place that is first may be wrong for a `*` that
    # follows, so what is between two `**` is found as a whole.
    parts: list[list[str]] = [[""]]
    for piece in pieces.finditer(word):
        if piece["glob"] == "**" and any_character != ".":
            parts.append([""])
        elif piece["glob"] in ("*", "**"):
            parts[-1].append("")
        else:
            parts[-1][-1] += _translate(piece, any_character)
    wildcard = f"{any_character}*?"
    *before, last = parts
    between = [_joined(each, wildcard, numbers, len(each)) for each in before]
    between.append(_joined(last, wildcard, numbers, len(last) - 1))
    expression = f"(?!.{{{longest + 1}}}){_joined(between, '.*?', numbers, len(between) - 1)}"
    try:
        return re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ValueError(f"'{word}' is not a valid pattern: {error}") from None


def _joined(parts: Sequence[str], wildcard: str, numbers: Iterator[int], once: int) -> str:
    """Expressions with a wildcard between them.

    once: how many of them are found where they are first, and never elsewhere: a lookahead is not
        entered again. (Atomic groups take Python 3.11.)
    """
    expression = parts[0]
    for index, part in enumerate(parts[1:], 1):
        if index < once:
            name = f"found{next(numbers)}"
            expression += f"(?=(?P<{name}>{wildcard}{part}))(?P={name})"
        else:
            expression += f"{wildcard}{part}"
    return expression


def _translate(piece: re.Match[str], any_character: str) -> str:
    glob = piece["glob"]
    if glob is None:
        return re.escape(piece["quoted"][1:-1])
    if glob == "?":
        return any_character
    if len(glob) > 1:
        negated = glob[1] == "!"
        members = glob[2:-1] if negated else glob[1:-1]
        # Future versions of re may read [[, --, &&, || and ~~ as operations on sets.
        members = "".join(
            f"{re.escape(first)}-{re.escape(last)}" if first else re.escape(single)
            for first, last, single in _MEMBER.findall(members)
        )
        # Without the lookahead [!a] would match the / of a path.
        return f"(?={any_character})[{'^' * negated}{members}]"
    return re.escape(glob)
