"""Tables of what guests report.

In a pipe they are plain and as wide as their content, so that names stay whole. Cells are text of
the guest: they are made printable here, and never read as rich's markup.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Union

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qga.client.texts import printable as printable

Cell = Union[str, Text, None]
Row = Sequence[Cell]

UNLIMITED = 10_000  # columns
UNKNOWN = "-"


class Manner:
    """How this process prints; the command line may change it."""

    quiet = False
    coloured = not os.environ.get("NO_COLOR")


manner = Manner()


def console(**how: Any) -> Console:
    """For text that is never read as markup; without any escapes if colors are off."""
    if not manner.coloured:
        how["color_system"] = None
    return Console(markup=False, highlight=False, emoji=False, **how)


def yes(value: bool) -> str:
    return "yes" if value else "no"


def show_table(
    heads: Sequence[str],
    rows: Iterable[Row],
    right: Sequence[str] = (),
    folding: Sequence[str] = (),
) -> None:
    """Print columns under `heads`; those named in `right` are numbers. None is unknown.

    If the terminal is too narrow, the first column is folded, or those named in `folding`.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(
            head,
            justify="right" if head in right else "left",
            overflow="fold",
            no_wrap=head not in (folding or heads[:1]),
        )
    for row in rows:
        table.add_row(*map(as_text, row))
    write(table)


def show_facts(facts: Iterable[tuple[str, Cell]]) -> None:
    """Print a line for each fact that is known, after its name."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(as_text(name), as_text(value))
    write(table)


def as_text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text(UNKNOWN if cell is None else printable(cell))


def write(table: Table) -> None:
    to = console()
    if not to.is_terminal:
        # A pipe has no width, and grep needs names in one piece.
        to.width = UNLIMITED
    with to.capture() as lines:
        to.print(table)
    # rich pads the last column with spaces.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines.get().splitlines()))
