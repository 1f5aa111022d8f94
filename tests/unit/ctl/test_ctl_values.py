"""Values of options, as people type them."""

from __future__ import annotations

import math

import pytest

from qga.ctl.units import seconds
from qga.ctl.values import parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("1.5", 1.5),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("10m", 600),
        ("10min", 600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h30min", 5400),
        ("1d1s", 86401),
        ("2d", 172800),
        ("inf", math.inf),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "0s", "-1", "1h30", "30x", "m", "1 h", "5sec", "1e3", "infs", "nan", "1..5", "1e999"],
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("16K", 2**14),
        ("16KB", 2**14),
        ("16M", 2**24),
        ("16MB", 2**24),
        ("16MiB", 2**24),
        ("16mib", 2**24),
        ("1G", 2**30),
        ("2TiB", 2**41),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "M", "16X", "16iB", "-1", "1.5M", "16 MB", "16MBs"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)
