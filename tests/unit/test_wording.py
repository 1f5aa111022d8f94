"""What programs say, word by word: `1 file`, and never `1 files`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.wording import counted

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("qga", "commands") for path in (REPOSITORY / room).rglob("*.py"))

PLURAL = re.compile(r"(?: of (?:the|its|them|those))? (?:more )?([a-z]+s|are|have|were)\b")
EITHER = re.compile(r"[a-z]\(s\)|%d (?:more )?[a-z]{2,}s\b|\{\} (?:more )?[a-z]{2,}s\b")

NO_NOUNS = {"s", "ms", "ours", "is", "has", "was", "does", "this", "less"}
"""Units, and words that follow a name as well as a number."""

VERBS = {
    *(
        "adds",
        "allows",
        "appears",
        "belongs",
        "comes",
        "fails",
        "follows",
        "goes",
        "leads",
        "lies",
        "lists",
    ),
    *("listens", "needs", "follows", "runs", "takes", "tells", "shows", "stops"),
}
"""They follow a name: a number before them would be one of something named before."""

JUSTIFIED = {
    "socket activation passed {…} sockets": "one is what was wanted",
    "{…} objects": "the name of a type",
    "of {…} are off": "which is chosen by `counted`",
    "of {…} are disabled": "which is chosen by `counted`",
    "all {…} are": "commands, of which there are dozens",
    "a terminal cannot have {…} rows or columns": "one is what it can have",
}


def parts(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Of each value that is put into a text: the line, the text as it is, and what follows it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        words = [str(each.value) if isinstance(each, ast.Constant) else "" for each in node.values]
        text = "".join(word or "{…}" for word in words)
        for value, after in zip(node.values, words[1:]):
            if isinstance(value, ast.FormattedValue) and not is_constant(value.value):
                yield node.lineno, text, after


def is_constant(value: ast.expr) -> bool:
    """A limit of ours, which is always more than one: MAX_LINES, module.MOST."""
    name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    return bool(name) and name.lstrip("_").isupper()


def faults(source: str) -> list[str]:
    tree = ast.parse(source)
    found = []
    for line, text, after in parts(tree):
        plural = PLURAL.match(after)
        if plural and plural[1] not in NO_NOUNS | VERBS:
            found.append(f"{line}: {text}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and EITHER.search(repr(node.value)):
            found.append(f"{node.lineno}: {node.value!r}")
    return [each for each in found if not any(text in each for text in JUSTIFIED)]


def test_numbers_are_counted() -> None:
    """A number before a noun goes through `counted`."""
    found = [
        f"{path.relative_to(REPOSITORY)}:{each}"
        for path in SOURCES
        for each in faults(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        'f"{count} files are already open"',
        'f"given up, with {dropped} more requests behind it"',
        'f"{count} of {len(every)} filesystems were frozen"',
        'f"{count} of its descriptors"',
        'f"{len(off)} are off"',
        'f"thawed {count} filesystem(s)"',
        '"%d files" % count',
        '"{} more guests".format(count)',
    ],
)
def test_one_that_is_not_is_found(text: str) -> None:
    assert faults(text)


def test_counted() -> None:
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(count, "is", "are") for count in (0, 1, 2)] == ["0 are", "1 is", "2 are"]
