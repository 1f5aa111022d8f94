"""What an agent says of its configuration before it serves anybody."""

from __future__ import annotations

import os
import socket
import tty
from pathlib import Path

from qga.agent import Agent
from qga.audit import BURST
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


def test_which_channels_have_a_client(tmp_path: Path) -> None:
    """A port has one while the host holds its other end."""
    host, device = os.openpty()
    tty.setraw(device)
    port = ChannelConfig("port", "virtio-serial", os.ttyname(device))
    os.close(device)
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main, port), statedir=str(tmp_path)), Log(Lines()))
    assert agent.channels_without_client() == {"main", "port"}
    agent.open()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(main.path)
        agent.loop.call_later(0.1, agent.stop)
        agent.run()
        assert agent.channels_without_client() == set()
    os.close(host)
    agent.loop.call_later(0.1, agent.stop)
    agent.loop.run()
    assert agent.channels_without_client() == {"main", "port"}
    agent.close()


def test_a_fault_that_comes_again_and_again_fills_no_log(tmp_path: Path) -> None:
    lines = Lines()
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log(lines))
    for _ in range(3 * BURST):
        assert str(agent.report_fault("qga-x", KeyError("k"))) == "qga-x failed: KeyError: 'k'"
    assert lines.texts.count("qga-x failed by a fault of its own:") == BURST
    agent.close()
