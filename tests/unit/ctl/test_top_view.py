"""The picture of `qgactl top`, in terminals of all kinds."""

from __future__ import annotations

import io
import re
from html import unescape
from typing import Any

import pytest
from qga_docs import top as sample
from rich.console import Console

from qga.client.monitoring.usage import Row
from qga.ctl.top_view import Picture, Screen, amount
from qga.ctl.units import duration
from tests.guest.image import CHECKOUT

HOSTILE = "[red]\x1b[2J\u202e"


def drawn(rows: list[Row], width: int, **how: Any) -> list[str]:
    console = Console(width=width, file=io.StringIO(), markup=False, emoji=False, **how)
    with console.capture() as lines:
        console.print(Picture(rows))
    return [line.rstrip() for line in lines.get().splitlines()]


def test_guests_in_a_table() -> None:
    assert drawn(sample.ROWS, 80) == [
        "Guest     CPU   Load  Memory    Received        Sent        Read     Written",
        "────────────────────────────────────────────────────────────────────────────",
        "web      34 %   1.38    72 %   1.7 MiB/s    21 MiB/s   310 KiB/s   2.2 MiB/s",
        "db       93 %   7.05    91 %   5.3 MiB/s   8.8 MiB/s    88 MiB/s    42 MiB/s",
        "build     2 %   0.04     5 %     230 B/s      90 B/s       0 B/s   4.0 KiB/s",
        "old    silent      -       -           -           -           -           -",
        "old: no answer within 1 s",
    ]


@pytest.mark.parametrize("width", (1, 2, 5, 9, 16, 17, 24, 40, 60, 61, 79, 100, 130))
@pytest.mark.parametrize("rows", [sample.ROWS, sample.ROWS[:1]])
def test_no_line_is_wider_than_the_terminal(rows: list[Row], width: int) -> None:
    lines = drawn(rows, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == len(drawn(rows, 200))


@pytest.mark.parametrize("height", [1, 3, 8, 40])
def test_the_keys_are_in_the_last_line_however_much_there_is(height: int) -> None:
    console = Console(width=60, height=height, file=io.StringIO(), markup=False)
    lines = console.render_lines(
        Screen(sample.ROWS[:1], "q quit"), console.options.update(height=height)
    )
    texts = ["".join(segment.text for segment in line).rstrip() for line in lines]
    assert (len(texts), texts[-1]) == (height, "q quit")


def test_a_narrow_terminal_has_what_matters_most() -> None:
    assert drawn(sample.ROWS[:2], 24)[0] == "Guest     CPU  Memory"
    assert drawn(sample.ROWS[:2], 10)[0] == "Guest"


def test_a_single_guest_is_shown_whole() -> None:
    lines = drawn(sample.ROWS[:1], 60)
    assert f"cpu 3   {'█' * 3}{'░' * 22}   11 %" in lines
    assert f"/srv    {'█' * 23}{'░' * 2}   92 %  92 GiB of 100 GiB" in lines
    assert "vda    310 KiB/s   2.2 MiB/s" in lines
    assert "eth0      1.7 MiB/s    21 MiB/s" in lines


def test_a_guests_text_does_nothing_to_the_terminal() -> None:
    usage = sample.WEB._replace(
        network={HOSTILE: sample.WEB.network["eth0"]},
        filesystems={HOSTILE: sample.WEB.filesystems["/"]},
    )
    shown = "\n".join(drawn([Row(HOSTILE, usage, "")], 200))
    shown += "\n".join(drawn([Row(HOSTILE, None, HOSTILE)], 200))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[red]\\x1b[2J\\u202e" in shown


def test_a_terminal_that_knows_only_ascii() -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(width=60, file=output, markup=False).print(Picture(sample.ROWS[:1]))
    output.flush()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (9 * 1024, "9.0 KiB"),
        (10 * 1024, "10 KiB"),
        (2.0**64, "16384 PiB"),
    ],
)
def test_amounts(count: float, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "59 s"), (3599, "59 min"), (3660, "1 h 01 min"), (172_800, "2 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def words(svg: str) -> str:
    """The text in a picture: how it is laid out is a matter of rich's version."""
    pieces = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return " ".join(unescape(" ".join(pieces)).split())


def test_the_picture_in_the_documentation_is_current() -> None:
    kept = (CHECKOUT / "docs/top.svg").read_text()
    assert words(kept) == words(sample.svg()), "run `make docs`"
