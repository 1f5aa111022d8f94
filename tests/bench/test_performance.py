"""The page of the ways for files, and its picture, from figures that are known."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from tests.bench import performance
from tests.bench.plot import svg
from tests.bench.ways import Cost, Passage

MIB = 1 << 20
PASSAGES = [
    Passage("a & b", True, 1024, Cost(0.001, 0.1, 0.2)),
    Passage("a & b", True, MIB, Cost(0.01, 0.002, 0.004)),
    Passage("a & b", False, MIB, Cost(0.1, 0.001, 0.002)),
    Passage("c", False, MIB, Cost(0.2, 0.001, 0.002)),
]


def test_measured_part_of_the_page_is_renewed_and_the_rest_stays(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "page.svg"
    page.write_text(f"# Head\n{performance.BEGIN}old\n{performance.END}tail\n")
    for _ in range(2):
        performance.write(PASSAGES, page, picture)
    text = page.read_text()
    assert text.startswith(f"# Head\n{performance.BEGIN}")
    assert text.endswith(f"{performance.END}tail\n")
    assert "old" not in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    # 1 KiB in 1 ms is 1.02 MB/s; the processor time is that of the largest file.
    assert ["a & b", "1.02", "105", "1.91", "3.81"] in rows
    assert rows.count(["c", "5.24", "0.95", "1.91"]) == 1


def test_picture_has_a_line_for_each_way_and_direction() -> None:
    drawing = ET.fromstring(svg(PASSAGES))
    tag = "{http://www.w3.org/2000/svg}"
    panels = drawing.findall(f"{tag}g")
    lines = [
        [len((line.get("points") or "").split()) for line in panel.findall(f"{tag}polyline")]
        for panel in panels
    ]
    assert lines == [[2], [1, 1]]
    assert "a & b" in [each.text for each in drawing.findall(f"{tag}text")]


def test_faster_is_higher_and_larger_is_further_right() -> None:
    (points,) = [
        [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
        for line in ET.fromstring(svg(PASSAGES[:2])).iter("{http://www.w3.org/2000/svg}polyline")
        if line.get("points")
    ]
    (left, low), (right, high) = points
    assert left < right and high < low
