"""Medians, ratios and verdicts as a table in Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple, Optional

from tests.bench.figures import TIMES, Figure

HEAD = ("what", "original", "ours", "ratio", "goal", "met")
NOTHING = "-"


class Row(NamedTuple):
    """A figure as it was measured; None where an agent has none."""

    figure: Figure
    original: Optional[float]
    ours: Optional[float]

    @property
    def ratio(self) -> Optional[float]:
        return self.ours / self.original if self.original and self.ours is not None else None

    @property
    def met(self) -> Optional[bool]:
        if self.figure.goal is None or self.ours is None:
            return None
        return self.figure.goal.is_met(self.ours, self.original)


class Samples:
    """The measurements by agent and figure, a number for each round."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, agent: str, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            self._samples[agent, key].append(value)

    def rows(self, figures: Iterable[Figure]) -> list[Row]:
        """A row for each figure that was measured."""
        rows = (
            Row(figure, self._median("original", figure.key), self._median("ours", figure.key))
            for figure in figures
        )
        return [row for row in rows if row.original is not None or row.ours is not None]

    def _median(self, agent: str, key: str) -> Optional[float]:
        samples = self._samples.get((agent, key))
        return median(samples) if samples else None


def render(rows: Sequence[Row]) -> str:
    lines = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])))
    return "".join(
        "| "
        + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        )
        + " |\n"
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    unit = row.figure.unit
    return (
        row.figure.what,
        _quantity(row.original, unit),
        _quantity(row.ours, unit),
        NOTHING if row.ratio is None else f"{row.ratio:.2f}{TIMES}",
        _goal(row.figure),
        NOTHING if row.met is None else "yes" if row.met else "**no**",
    )


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return NOTHING
    of, relation, bound = figure.goal
    return f"{relation} {_with_unit(f'{bound:g}', TIMES if of == 'ratio' else figure.unit)}"


def _quantity(value: Optional[float], unit: str) -> str:
    return NOTHING if value is None else _with_unit(_number(value), unit)


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit in ("", TIMES) else f"{number} {unit}"


def _number(value: float) -> str:
    """Three digits or so."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
