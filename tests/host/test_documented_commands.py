"""The console and Python blocks of the pages, on a host whose only guest is `web`.

docs/qgactl.md has a test of its own, in test_day.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.vm import Guest
from tests.pages import CHECKOUT, blocks, pages, shape, steps

from .day import PAGE, Day

pytestmark = pytest.mark.timeout(900)

# The guest's processor is emulated: its answers may take longer than a call waits by default.
PATIENT = """
import pathlib, sys
from qga.client import AsyncGuestAgent
from qga.client.connection import Connection
for agent in AsyncGuestAgent, Connection:
    agent.__init__.__defaults__ = (60.0,)
exec(compile(pathlib.Path(sys.argv[1]).read_text(), sys.argv[2], "exec"))
"""


def run_on_the_host(page: str, language: str) -> bool:
    return any(block.language == language and not block.comment for block in blocks(page))


PAGES = [page for page in pages() if not PAGE.match(page)]
CONSOLE_PAGES = [page for page in PAGES if run_on_the_host(page, "console")]
PYTHON_PAGES = [page for page in pages() if run_on_the_host(page, "python")]


@pytest.mark.parametrize("page", CONSOLE_PAGES)
def test_the_commands_print_what_the_page_shows(page: str, guest: Guest, tmp_path: Path) -> None:
    day = Day(guest, tmp_path)
    for block in blocks(page):
        if block.language == "console" and not block.comment:
            for step in steps(block.text):
                shown = shape(day.run(step.command))
                missing = [line for line in shape(step.output) if line not in [*shown, "…"]]
                assert missing == [], f"{block.place}: {step.command}"


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_the_program_of_the_page_runs(page: str, guest: Guest, tmp_path: Path) -> None:
    """All blocks of a page, at the lines where the page has them."""
    day = Day(guest, tmp_path)
    program = ""
    for block in blocks(page):
        if block.language == "python" and not block.comment:
            program += "\n" * (block.line - 1 - program.count("\n")) + block.text
    script = day.work / "program.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PATIENT, script, page],
        cwd=day.work,
        env=day.env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_playbook_runs_a_program_in_every_guest(guest: Guest, tmp_path: Path) -> None:
    day = Day(guest, tmp_path)
    playbook = CHECKOUT / "examples/guests.yml"
    # Else Ansible takes the environment's, whose path may have spaces.
    python = "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3"
    shown = day.run(f"{python} ansible-playbook -i localhost, -c local '{playbook}'")
    assert '"msg": "Linux ' in shown, shown
