"""A picture of what the dashboard's panels show, from the data of a real Prometheus."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, PercentFormatter

from tests.ecosystem.prometheus import Prometheus, Query, dashboard_queries
from tests.guest.image import CHECKOUT

PICTURE = CHECKOUT / "docs/grafana.png"
COLUMNS = 4
MOST_LINES = 7
"""The key of a panel has no room for more."""

FORMATS: dict[str, Callable[[], Any]] = {
    "percentunit": lambda: PercentFormatter(xmax=1, decimals=None),
    "binBps": lambda: EngFormatter(unit="B/s"),
    "Bps": lambda: EngFormatter(unit="B/s"),
    "s": lambda: EngFormatter(unit="s"),
}


def draw(prometheus: Prometheus, start: float, end: float) -> None:
    """Save the picture of the time from `start` to `end`, both as time.time() has it."""
    mpl.rcParams["font.size"] = 7
    panels = [list(group) for _, group in groupby(dashboard_queries(), lambda each: each.panel)]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2 * rows), layout="constrained", dpi=80)
    grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, queries in zip(grid, panels):
        draw_panel(axes, queries, prometheus, start, end)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(PICTURE, metadata={"Software": None})


def draw_panel(
    axes: Any, queries: list[Query], prometheus: Prometheus, start: float, end: float
) -> None:
    lines = [
        (legend(query, series["metric"]), [(at, float(value)) for at, value in series["values"]])
        for query in queries
        for series in prometheus.history(query.expression, start, end)
    ]
    # The booted guest is what the page is about, and great values say more than small ones.
    lines.sort(key=lambda line: (not line[0].startswith("web"), -max(v for _, v in line[1])))
    for label, values in lines[:MOST_LINES]:
        times, figures = zip(*values)
        axes.plot([at - start for at in times], figures, label=label, lw=1)
    axes.set_title(queries[0].panel, loc="left", fontweight="bold")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, end - start)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g} s"))
    if queries[0].unit in FORMATS:
        axes.yaxis.set_major_formatter(FORMATS[queries[0].unit]())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=5, loc="upper right", framealpha=0.6)


def legend(query: Query, labels: dict[str, str]) -> str:
    """As Grafana fills in the names of labels."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), query.legend)
