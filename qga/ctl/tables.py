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
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qga.client.texts import printable as printable

Cell = Union[str, Text, None]
Row = Sequence[Cell]

# Columns: of a table in a pipe, of one that is wider than its terminal at most, of a folded cell at
# least, between two cells.
UNLIMITED = 10_000
USUAL = 80
NARROW = 5
BETWEEN = 3
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
    folded = folding or heads[:1]
    for head in heads:
        table.add_column(
            head,
            justify="right" if head in right else "left",
            overflow="fold",
            no_wrap=head not in folded,
        )
    widths = dict(zip(heads, map(cell_len, heads)))
    for row in rows:
        cells = list(map(as_text, row))
        table.add_row(*cells)
        # Of a guest's text, which may have megabytes, the beginning is enough.
        lengths = (cell_len(cell.plain[:USUAL]) for cell in cells)
        widths.update(zip(heads, map(max, widths.values(), lengths)))
    least = sum(min(width, NARROW) if head in folded else width for head, width in widths.items())
    write(table, least + BETWEEN * (len(heads) - 1))


def show_facts(facts: Iterable[tuple[str, Cell]]) -> None:
    """Print a line for each fact that is known, after its name."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    least = 0
    for name, value in facts:
        if value:
            table.add_row(as_text(name), as_text(value))
            least = max(least, cell_len(name))
    write(table, least + BETWEEN + NARROW)


def as_text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text(UNKNOWN if cell is None else printable(cell))


def write(table: Table, least: int) -> None:
    """Print a table. On a terminal with less than `least` columns its lines are longer than that,
    up to the usual 80: rich would leave cells empty.
    """
    to = console()
    # A pipe has no width, and grep needs names in one piece.
    to.width = max(to.width, min(least, USUAL)) if to.is_terminal else UNLIMITED
    with to.capture() as lines:
        to.print(table)
    # rich pads the last column with spaces.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines.get().splitlines()))
