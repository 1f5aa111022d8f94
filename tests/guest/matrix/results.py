"""Writes docs/tested.md: the results of a run of the matrix, one row for each guest.

A run replaces the rows of the guests that it has booted and keeps the others.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from tests.guest.building import CHECKOUT

from .recipes import GUESTS

PAGE = CHECKOUT / "docs/tested.md"
HEAD = """\
# Tested guests

`make guests` writes this table. It boots each guest under QEMU, installs the agent over QEMU's own
agent while that serves the host, and runs the tests of `tests/guest/matrix`. The first four guests
are part of `make test` and so of every CI run.

"""
COLUMNS = ("Guest", "Architecture", "Linux", "Python", "Init", "QEMU's agent", "Date", "Passed")


class Facts(NamedTuple):
    """What a guest reports about itself."""

    arch: str
    kernel: str
    python: str
    init: str
    agent: str


class Results:
    """The outcomes of a run."""

    def __init__(self) -> None:
        self.facts: dict[str, Facts] = {}
        self.outcomes: dict[str, dict[str, bool]] = {}

    def add(self, guest: str, test: str, passed: bool) -> None:
        """Record an outcome. Of several for a test, such as for its set-up, the worst counts."""
        outcomes = self.outcomes.setdefault(guest, {})
        outcomes[test] = outcomes.get(test, True) and passed

    def rows(self, today: str) -> dict[str, str]:
        """The rows of the guests of this run."""
        return {
            guest: row(guest, *facts, today, summary(self.outcomes[guest]))
            for guest, facts in self.facts.items()
        }

    def write(self, path: Path = PAGE) -> None:
        known = rows_of(path.read_text()) if path.exists() else {}
        path.write_text(page({**known, **self.rows(time.strftime("%Y-%m-%d"))}))


def summary(outcomes: dict[str, bool]) -> str:
    failed = [words(test) for test, passed in outcomes.items() if not passed]
    if not failed:
        return f"all {len(outcomes)}"
    return f"{len(outcomes) - len(failed)} of {len(outcomes)}; failed: {', '.join(failed)}"


def words(test: str) -> str:
    """The name of a test on the page."""
    return test.removeprefix("test_").replace("_", " ")


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def rows_of(text: str) -> dict[str, str]:
    """The table's rows by guest."""
    rows = [line for line in text.splitlines(keepends=True) if line.startswith("| ")]
    return {line.split("|")[1].strip(): line for line in rows[1:]}


def page(rows: dict[str, str]) -> str:
    """The page with these rows, in the order of the matrix."""
    table = row(*COLUMNS) + "|" + "---|" * len(COLUMNS) + "\n"
    return HEAD + table + "".join(rows[guest] for guest in GUESTS if guest in rows)
