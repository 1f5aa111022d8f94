"""The two versions, and what the agent imports before it serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import qga
from qga import version

HEAVY = {
    "argparse",
    "asyncio",
    "configparser",
    "dataclasses",
    "importlib.metadata",
    "inspect",
    "logging",
    "pathlib",
    "psutil",
    "rich",
    "serial",
    "subprocess",
    "systemd",
    "threading",
    "typer",
}

START = """
import json, sys
folder, *heavy = sys.argv[1:]
for name in heavy:  # what a development installation needs to find the packages
    sys.modules.pop(name, None)
from qga.agent import Agent
from qga.settings.config import ChannelConfig, Config
from qga.service.log import Log
door = ChannelConfig(method="unix-listen", path=folder + "/s")
agent = Agent(Config((door,), statedir=folder), Log())
agent.open()
agent.close()
print(json.dumps(sorted(sys.modules)))
"""


def test_the_interface_has_three_numbers_of_a_byte() -> None:
    numbers = [int(number) for number in version.INTERFACE_VERSION.split(".")]
    assert len(numbers) == 3
    assert all(0 <= number <= 255 for number in numbers)


def test_a_plugin_can_ask_for_both() -> None:
    assert qga.__version__ == version.__version__
    assert qga.INTERFACE_VERSION == version.INTERFACE_VERSION


def test_an_agent_that_listens_has_imported_nothing_heavy(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path), *HEAVY],
        check=True,
        capture_output=True,
    )
    assert HEAVY.intersection(json.loads(ran.stdout)) == set()
