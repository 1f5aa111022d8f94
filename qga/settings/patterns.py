"""Patterns in rules: for paths, for programs with their arguments, and for names.

In a path, `*` and `?` match anything but `/`, `**` matches anything, `[abc]` and `[!abc]` match one
character, and a pattern that ends in `/` matches everything below. A leading dot is not special.

A rule for a program is a pattern for its path followed by a pattern for each argument, separated
into words as in a shell: quotes keep blanks and `;` together, and wildcards inside them are taken
literally. In arguments `*` also matches `/`. Without patterns for arguments any arguments match,
`""` alone matches none, and `...` as the last word matches any further arguments.

Patterns match whole texts. The caller must pass real paths, without `..` and symbolic links.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from qga.records import NamedTuple

_WORD = re.compile(r"""(?:[^\s;'"]|'[^']*'|"[^"]*")+""")
_RULE = re.compile(r"""(?:[^;'"]|'[^']*'|"[^"]*")+""")
# As in glob(7), a `]` right after `[` or `[!` is a member.
_PIECE = re.compile(r"""'([^']*)'|"([^"]*)"|(\*\*|\*|\?|\[!?\]?[^\]]*\]|[^'"])""", re.DOTALL)
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
    return _compile_path(text, _quoted(text))


def compile_name(text: str) -> re.Pattern[str]:
    """Compile a pattern for names, such as those of accounts."""
    return _compile(_quoted(text), ".")


def compile_program(text: str) -> Program:
    """Compile a rule for a program. Raises ValueError."""
    if _unquoted_rest(_RULE, text):
        raise ValueError(f"'{text}' has an unclosed quote")
    program, *words = _WORD.findall(text) or [""]
    more = words[-1:] == [_MORE]
    if more:
        words.pop()
    path = _compile_path(_plain(program), program)
    if not words and not more:
        return Program(path, None, True)
    if len(words) == 1 and words[0] in _NOTHING and not more:
        words = []
    return Program(path, tuple(_compile(word, ".") for word in words), more)


def split_rules(text: str) -> list[str]:
    """Split a list of rules at each `;` outside quotes. Raises ValueError for an open quote."""
    if _unquoted_rest(_RULE, text):
        raise ValueError(f"'{text}' has an unclosed quote")
    return _RULE.findall(text)


def _unquoted_rest(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub("", text).replace(";", "")


def _quoted(text: str) -> str:
    """The text with its quotes escaped, so that they match literally."""
    return re.sub(r"""(['"])""", r"[\1]", text)


def _plain(word: str) -> str:
    return word.replace("'", "").replace('"', "")


def _compile_path(text: str, word: str) -> re.Pattern[str]:
    if not text.startswith("/"):
        raise ValueError(f"'{text}' is not an absolute path; it must begin with /")
    steps = text[1:].removesuffix("/").split("/")
    if text != "/" and any(step in ("", ".", "..") for step in steps):
        raise ValueError(f"'{text}' cannot match: real paths contain no '//', '/./' or '/../'")
    return _compile(f"{word}**" if text.endswith("/") else word, "[^/]")


def _compile(word: str, any_character: str) -> re.Pattern[str]:
    try:
        expression = "".join(_translate(piece, any_character) for piece in _PIECE.finditer(word))
        return re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ValueError(f"'{word}' is not a valid pattern: {error}") from None


def _translate(piece: re.Match[str], any_character: str) -> str:
    glob = piece[3]
    if glob is None:
        return re.escape(piece[1] or piece[2] or "")
    if glob == "**":
        return ".*"
    if glob == "*":
        return f"{any_character}*"
    if glob == "?":
        return any_character
    if len(glob) > 1:
        negated, members = glob[1] == "!", glob[1:-1].lstrip("!") if glob[1] == "!" else glob[1:-1]
        # Future versions of re may read [[, &&, || and ~~ as operations on sets.
        members = re.sub(r"([\\\[\]^&~|])", r"\\\1", members)
        # Without the lookahead [!a] would match the / of a path.
        return f"(?={any_character})[{'^' * negated}{members}]"
    return re.escape(glob)
