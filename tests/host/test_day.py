"""docs/qgactl.md tells the truth: its commands write what it says, but for the numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.guest.vm import Guest

from .day import PAGE, Day, run_again

pytestmark = pytest.mark.timeout(900)


def shape(text: str) -> list[str]:
    """Lines without what differs from run to run: numbers, the width of columns, which of two
    clocks is ahead, and whether an emulated guest is quick and its clock right."""
    text = re.sub(r"\b[0-9a-f]{4,}\b|\d+(\.\d+)?", "0", text)
    text = text.replace("ahead of this host's", "behind this host's")
    text = re.sub(r"^(?:ok|warning)( +(?:clock|round trip):)", r"ok\1", text, flags=re.MULTILINE)
    return [re.sub(r"[ ─]+", " ", line).strip() for line in text.splitlines()]


def test_the_page(guest: Guest, tmp_path: Path) -> None:
    for step, now in run_again(PAGE.read_text(), Day(guest, tmp_path)):
        shown = shape(now)  # of a guest that may have more filesystems by now
        assert [line for line in shape(step.output) if line not in shown] == [], step.command
