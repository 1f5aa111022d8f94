"""Medians, ratios and verdicts as a table in Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple, Optional

from tests.bench.figures import TIMES, Figure

HEAD = ("what", "11.1", "ours", "ratio", "goal", "met", "7.2", "ratio")
NOTHING = "-"


class Row(NamedTuple):
    """A figure as it was measured; None where an agent has none."""

    figure: Figure
    original: Optional[float]
    ours: Optional[float]
    older: Optional[float] = None
    """The original as long-lived distributions have it."""

    @property
    def ratio(self) -> Optional[float]:
        return self._ratio_to(self.original)

    @property
    def ratio_to_older(self) -> Optional[float]:
        return self._ratio_to(self.older)

    def _ratio_to(self, other: Optional[float]) -> Optional[float]:
        return self.ours / other if other and self.ours is not None else None

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
            Row(
                figure,
                *(self._median(who, figure.key) for who in ("original", figure.agent, "older")),
            )
            for figure in figures
        )
        return [row for row in rows if row.ours is not None]

    def _median(self, agent: str, key: str) -> Optional[float]:
        samples = self._samples.get((agent, key))
        return median(samples) if samples else None


def render(rows: Sequence[Row]) -> str:
    return table([HEAD, *(_cells(row) for row in rows)])


def table(lines: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown, whose first line is its head."""
    lines = list(lines)
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
        _times(row.ratio),
        _goal(row.figure),
        NOTHING if row.met is None else "yes" if row.met else "**no**",
        _quantity(row.older, unit),
        _times(row.ratio_to_older),
    )


def _times(ratio: Optional[float]) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}{TIMES}"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return NOTHING
    of, relation, bound = figure.goal
    return f"{relation} {_with_unit(f'{bound:g}', TIMES if of == 'ratio' else figure.unit)}"


def _quantity(value: Optional[float], unit: str) -> str:
    return NOTHING if value is None else _with_unit(number_text(value), unit)


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit in ("", TIMES) else f"{number} {unit}"


def number_text(value: float) -> str:
    """Three digits or so."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
