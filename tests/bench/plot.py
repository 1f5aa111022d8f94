"""A picture of throughput over message size, as SVG: two panels with logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from tests.bench.ways import Passage

PANEL, HEIGHT = 300, 250
LEFT, TOP, GAP = 60, 40, 50
KEY_WIDTH = 190
COLOURS = ("#d62728", "#1f77b4", "#17becf", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#7f7f7f")
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
"""

Points = Sequence[tuple[float, float]]


class Axes:
    """Where a size and a speed are, for all panels."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.sizes = sorted({each.size for each in passages})
        speeds = [each.speed for each in passages]
        self.decades = range(
            math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds))) + 1
        )

    def x(self, size: float) -> float:
        first, last = math.log(self.sizes[0]), math.log(self.sizes[-1])
        return PANEL * (math.log(size) - first) / (last - first)

    def y(self, speed: float) -> float:
        first, last = self.decades[0], self.decades[-1]
        return HEIGHT * (last - math.log10(speed)) / (last - first)


def svg(passages: Sequence[Passage]) -> str:
    """The picture, a line for each way."""
    axes = Axes(passages)
    names = list(dict.fromkeys(each.way for each in passages))
    width, height = LEFT + 2 * PANEL + 2 * GAP + KEY_WIDTH, TOP + HEIGHT + 50
    lines = [HEAD.format(width=width, height=height)]
    for number, (title, into) in enumerate((("into the guest", True), ("from the guest", False))):
        lines.append(f'<g transform="translate({LEFT + number * (PANEL + GAP)},{TOP})">\n')
        lines += frame(axes, f"MB/s {title}")
        for name, colour in zip(names, COLOURS):
            points = [
                (axes.x(each.size), axes.y(each.speed))
                for each in passages
                if (each.way, each.into) == (name, into)
            ]
            if points:
                lines += line(points, colour)
        lines.append("</g>\n")
    lines += key(names, LEFT + 2 * PANEL + 2 * GAP - 20)
    return "".join([*lines, "</svg>\n"])


def frame(axes: Axes, title: str) -> Iterator[str]:
    yield text(PANEL / 2, -15, title, "middle")
    for decade in axes.decades:
        y = axes.y(10**decade)
        yield f'<path d="M0 {y:.1f}H{PANEL}" stroke="#ddd"/>\n'
        yield text(-6, y + 4, f"{10**decade:g}", "end")
    for size in axes.sizes:
        yield f'<path d="M{axes.x(size):.1f} 0V{HEIGHT}" stroke="#ddd"/>\n'
        yield text(axes.x(size), HEIGHT + 18, size_text(size), "middle")
    yield text(PANEL / 2, HEIGHT + 38, "size of the file", "middle")


def line(points: Points, colour: str) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>\n'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>\n'


def key(names: Iterable[str], left: float) -> Iterator[str]:
    for number, (name, colour) in enumerate(zip(names, COLOURS)):
        y = TOP + 20 * number
        yield f'<path d="M{left} {y}h20" stroke="{colour}" stroke-width="2"/>\n'
        yield text(left + 26, y + 4, name, "start")


def text(x: float, y: float, content: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>\n'


def size_text(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
