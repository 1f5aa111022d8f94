"""The scripts of a copy, in this machine's shell: what somebody puts in their way meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from qga.client.copies.shell_scripts import CHECKSUMS, CREATE, EACH, ENTER, OWNERS, Script

PATIENCE = 20.0


def run(text: str, *arguments: object) -> str:
    command = ["/bin/sh", "-c", text, "sh", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


def each(script: Script, *arguments: object) -> tuple[str, str]:
    """What the script prints for one file, and its status."""
    output = run(ENTER + OWNERS + script.text + EACH, len(arguments), *arguments)
    said, status, _ = output.split("\0")
    return said.strip(), status


def test_a_new_file(tmp_path: Path) -> None:
    said, status = each(CREATE, tmp_path, "", "part", "")
    found = (tmp_path / "part").stat()
    assert (said, status) == (f"{found.st_dev}:{found.st_ino}", "0")
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_a_fifo_is_not_taken_for_a_new_file(tmp_path: Path) -> None:
    """-C refuses regular files only."""
    os.mkfifo(tmp_path / "part")
    reading = os.open(tmp_path / "part", os.O_RDONLY | os.O_NONBLOCK)
    try:
        answer = each(CREATE, tmp_path, "", "part", "")
    finally:
        os.close(reading)
    assert answer == ("is not a file of the agent's user", "1")


def test_a_fifo_has_no_checksum(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "source")
    assert run(CHECKSUMS.text, tmp_path / "source", 0, 100) == "\n"
