"""docs/performance.md: the measured part of the page, and its picture."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.plot import size_text, svg
from tests.bench.table import number_text, table
from tests.bench.ways import Passage
from tests.guest.image import CHECKOUT

PAGE, PICTURE = CHECKOUT / "docs/performance.md", CHECKOUT / "docs/performance.svg"
BEGIN, END = "<!-- measured: `make bench` writes this -->\n", "<!-- end of what was measured -->\n"


def write(passages: Sequence[Passage], page: Path = PAGE, picture: Path = PICTURE) -> None:
    """Renew both."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("".join((before, BEGIN, "\n", measured(passages), "\n", END, after)))
    picture.write_text(svg(passages))


def measured(passages: Sequence[Passage]) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime())
    sections = [
        "![MB/s over the size of the file](performance.svg)\n",
        f"Measured on {day}, with a load average of {os.getloadavg()[1]:.1f}.\n",
    ]
    for title, into in (("Into the guest", True), ("From the guest", False)):
        rows = [each for each in passages if each.into is into]
        sections.append(f"{title}, in MB/s, and processor seconds per GB of the largest file:\n")
        sections.append(speeds(rows))
    return "\n".join(sections)


def speeds(passages: Sequence[Passage]) -> str:
    sizes = sorted({each.size for each in passages})
    lines = [("way", *map(size_text, sizes), "host s/GB", "guest s/GB")]
    for way in dict.fromkeys(each.way for each in passages):
        own = sorted((each for each in passages if each.way == way), key=lambda each: each.size)
        largest = own[-1]
        per_gb = [seconds / largest.size * 1e9 for seconds in largest.cost[1:]]
        figures = [number_text(value) for value in (*(each.speed for each in own), *per_gb)]
        lines.append((way, *figures))
    return table(lines)
