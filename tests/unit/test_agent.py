"""What an agent reports about its configuration before it serves."""

from __future__ import annotations

import os
import socket
import tty
from errno import ENOENT
from pathlib import Path

import pytest

from qga.agent import Agent
from qga.errors import ConfigError
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving.audit import MAX_BURST
from qga.settings.config import ChannelConfig, Config
from tests.unit.log_lines import Lines


def config_of(tmp_path: Path, *block: str, allow: tuple[str, ...] = ()) -> Config:
    first = ChannelConfig(
        method="unix-listen", path=str(tmp_path / "s"), block_rpcs=block, allow_rpcs=allow
    )
    second = ChannelConfig("second", "unix-listen", str(tmp_path / "s2"), block_rpcs=block)
    return Config((first, second), statedir=str(tmp_path))


def test_an_unknown_command_is_logged_once(tmp_path: Path) -> None:
    """It may belong to a plugin that is missing or to another version."""
    lines = Lines()
    config = config_of(tmp_path, "guest-exec", "qga-pods", allow=("guest-ping", "acme-backup"))
    Agent(config, Log(lines)).close()
    advice = "--block-rpcs=help lists all commands"
    assert lines.texts == [
        f"the command line: block-rpcs=qga-pods: unknown command 'qga-pods'; {advice}",
        f"the command line: allow-rpcs=acme-backup: unknown command 'acme-backup'; {advice}",
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


@pytest.mark.parametrize("path", ["/näh", "/näh".encode()])
def test_an_error_of_the_system_names_the_file_as_text(tmp_path: Path, path: str | bytes) -> None:
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log(Lines()))
    error = OSError(ENOENT, os.strerror(ENOENT), path)
    answer = agent.report_fault("qga-x", error)
    assert str(answer) == "qga-x failed '/näh': No such file or directory"
    agent.close()


def test_a_fault_that_comes_again_and_again_fills_no_log(tmp_path: Path) -> None:
    lines = Lines()
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log(lines))
    for _ in range(3 * MAX_BURST):
        assert str(agent.report_fault("qga-x", KeyError("k"))) == "qga-x failed: KeyError: 'k'"
    assert lines.texts.count("error in qga-x:") == MAX_BURST
    agent.close()


def test_a_fault_that_quotes_a_million_lines_fills_no_log(tmp_path: Path) -> None:
    lines = Lines()
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log(lines))
    agent.report_fault("qga-x", ValueError("a\n" * 1_000_000 + "the end"))
    assert lines.texts[1:3] == ["ValueError: a", "a"]
    assert lines.texts[100] == "[the lines between are left out]"
    assert lines.texts[-2:] == ["a", "the end"]
    assert len(lines.texts) == 201
    agent.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("guest-exce", "did you mean 'guest-exec'?"),
        ("guest_exec", "did you mean 'guest-exec'?"),
        ("exec", "did you mean 'guest-exec'?"),
        ("set-user-password", "did you mean 'guest-set-user-password'?"),
        ("guestexec", "did you mean 'guest-exec'?"),
        ("Guest-Exec", "did you mean 'guest-exec'?"),
        ("guest-exec.", "did you mean 'guest-exec'?"),
        ("gest-exec", "did you mean 'guest-exec'?"),
        ("qga-exce", "did you mean 'qga-exec'?"),
        ("guest-fle-opn", "did you mean 'guest-file-open'?"),
        ("guest-fsfreeze-freez-lst", "did you mean 'guest-fsfreeze-freeze-list'?"),
        ("guest-file-*", "use full names, separated by commas"),
        ("guest-exec;guest-file-open", "use full names, separated by commas"),
        ("guest-exec guest-file-open", "use full names, separated by commas"),
        ('"guest-exec"', "use full names, separated by commas"),
    ],
)
def test_a_misspelt_name_stops_the_agent(tmp_path: Path, name: str, reason: str) -> None:
    for config in (
        config_of(tmp_path, "guest-ping", name),
        config_of(tmp_path, allow=("guest-ping", name)),
    ):
        with pytest.raises(ConfigError) as raised:
            Agent(config, Log(Lines()))
        assert str(raised.value).endswith(f"unknown command '{name}'; {reason}")


def test_commands_of_qemu_that_this_guest_lacks_are_known(tmp_path: Path) -> None:
    """Those of other systems, and those that need what is not there."""
    lines = Lines()
    names = (
        "guest-get-devices",
        "guest-get-driver-packages",
        "guest-suspend-ram",
        "guest-get-disks",
    )
    Agent(config_of(tmp_path, *names), Log(lines)).close()
    assert lines.texts == []


def test_guest_info_says_what_each_channel_may_call_now(tmp_path: Path) -> None:
    """Its reply is kept, but never for another channel or after a freeze or thaw."""
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log(Lines()))
    guest_info = agent.registry.get("guest-info")
    assert guest_info is not None
    agent.complete(guest_info)

    def enabled(policy: Policy) -> set[str]:
        info = guest_info.handler(caller=Caller("main", policy))
        return {entry["name"] for entry in info["supported_commands"] if entry["enabled"]}

    everything, reading = Policy(main), Policy(main._replace(profile="file-read"))
    for frozen in (False, True, False):
        agent.frozen = frozen
        for _ in range(2):
            for policy in (everything, reading):
                assert ("guest-file-open" in enabled(policy)) is not frozen
                assert "guest-ping" in enabled(policy)
            assert ("guest-exec" in enabled(everything)) is not frozen
            assert "guest-exec" not in enabled(reading)
    agent.close()
