"""What `make guest` prints leads to the guest's agent."""

from __future__ import annotations

import re

import pytest

from tests.guest.__main__ import introduce
from tests.guest.vm import Guest
from tests.integration.qgactl_process import SLOW, qgactl

EXPORT = re.compile(r" *export QGA_CONNECT=(\S+)")


def test_the_line_to_paste(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    introduce(guest)
    lines = capsys.readouterr().out.splitlines()
    (address,) = (line[1] for line in map(EXPORT.fullmatch, lines) if line)
    status, output, _ = qgactl(*SLOW, "ping", address=address)
    assert status == 0
    assert "answer 1" in output
