"""What `make guest` prints leads to the guest's agent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qga.client.hosts.processes import name_in
from tests.guest.__main__ import NAME, introduce, name_option
from tests.guest.vm import Guest


def test_the_lines_to_paste(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    introduce(guest)
    lines = capsys.readouterr().out.splitlines()
    pasted = "".join(f"{line}\n" for line in lines if line.startswith("    "))
    pasted = pasted.replace("qgactl ping", "qgactl ping --timeout 60")
    output = subprocess.check_output(
        ["/bin/sh", "-e"], input=pasted, env={"PATH": "/usr/bin:/bin"}, text=True, timeout=60
    )
    assert "answer 1" in output


def test_its_name_is_that_of_the_documentation() -> None:
    assert name_in(["qemu-system-x86_64", *name_option(Path())], 1) == NAME == "web"
