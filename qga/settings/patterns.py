"""The patterns of rules: paths, programs with their arguments, names.

In a path `*` and `?` stand for anything but `/`, `**` for anything, `[abc]` and `[!abc]` for one
character; a pattern that ends in `/` means all that is below. A leading dot is nothing special.

A rule of a program is a path's pattern and then a pattern for each argument, in words as a shell
has them: quotes keep blanks and `;` together and make `*`, `?` and `[` stand for themselves. In
arguments `*` stands for `/`, too. Without patterns of arguments any will do, `""` alone lets none
pass, and `...` as the last word lets any more follow.

Patterns match whole texts only. What they match against must be real paths: patterns know
nothing of `..` and of symbolic links, so whoever asks has resolved them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

_WORD = re.compile(r"""(?:[^\s;'"]|'[^']*'|"[^"]*")+""")
_RULE = re.compile(r"""(?:[^;'"]|'[^']*'|"[^"]*")+""")
_PIECE = re.compile(r"""'([^']*)'|"([^"]*)"|(\*\*|\*|\?|\[!?\]?[^\]]*\]|[^'"])""", re.DOTALL)
_MORE = "..."
_NOTHING = ('""', "''")


class Program(NamedTuple):
    """A rule of a program. `arguments` None: any; `more`: any may follow those."""

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
    """The pattern of a path. Raises ValueError for one that no real path could match."""
    return _compile_path(text, _quoted(text))


def compile_name(text: str) -> re.Pattern[str]:
    """The pattern of a name, such as an account's."""
    return _compile(_quoted(text), ".")


def compile_program(text: str) -> Program:
    """The rule of a program. Raises ValueError."""
    if _unquoted_rest(_RULE, text):
        raise ValueError(f"'{text}' opens a quote and does not close it")
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
    """The rules of a list; a quoted `;` parts nothing. Raises ValueError for an open quote."""
    if _unquoted_rest(_RULE, text):
        raise ValueError(f"'{text}' opens a quote and does not close it")
    return _RULE.findall(text)


def _unquoted_rest(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub("", text).replace(";", "")


def _quoted(text: str) -> str:
    """As it is, but with quotes that are no quotes."""
    return re.sub(r"""(['"])""", r"[\1]", text)


def _plain(word: str) -> str:
    return word.replace("'", "").replace('"', "")


def _compile_path(text: str, word: str) -> re.Pattern[str]:
    if not text.startswith("/"):
        raise ValueError(f"'{text}' is no full path; it must begin with /")
    steps = text[1:].removesuffix("/").split("/")
    if text != "/" and any(step in ("", ".", "..") for step in steps):
        raise ValueError(f"'{text}' matches no real path, which holds no '//', '/./' and '/../'")
    return _compile(f"{word}**" if text.endswith("/") else word, "[^/]")


def _compile(word: str, any_character: str) -> re.Pattern[str]:
    try:
        expression = "".join(_translate(piece, any_character) for piece in _PIECE.finditer(word))
        return re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ValueError(f"'{word}' is no pattern: {error}") from None


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
        members = re.sub(r"([\\\[\]^&~|])", r"\\\1", members)
        return f"(?={any_character})[{'^' * negated}{members}]"
    return re.escape(glob)
