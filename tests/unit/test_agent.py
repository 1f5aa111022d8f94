"""What an agent says of its configuration before it serves anybody."""

from __future__ import annotations

from pathlib import Path

from qga.agent import Agent
from qga.config import ChannelConfig, Config
from qga.log import Log


class Lines:
    """A sink that keeps what is logged."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        self.texts.append(text)

    def reopen(self) -> None:
        pass


def test_a_name_that_is_no_command_is_told_once(tmp_path: Path) -> None:
    lines = Lines()
    second = ChannelConfig("second", "unix-listen", "s2", block_rpcs=("guest-exce", "guest-ping"))
    first = ChannelConfig(
        method="unix-listen",
        path=str(tmp_path / "s"),
        block_rpcs=("guest-exec", "guest-exce"),
        allow_rpcs=("guest-ping", "guest-pign"),
    )
    config = Config((first, second), statedir=str(tmp_path))
    Agent(config, Log(lines)).close()
    assert lines.texts == [
        "block-rpcs names guest-exce, which is no command of this agent",
        "allow-rpcs names guest-pign, which is no command of this agent",
    ]
