"""A channel that cannot be opened yet is opened later, and one that was closed is left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qga.channels import base
from qga.channels.base import Channel
from qga.errors import ChannelError
from qga.loop import Loop
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.settings.config import ChannelConfig
from tests.unit.log_lines import Lines


class Late(Channel):
    """Can be opened at the third attempt."""

    attempts = 0
    steps = ""

    @property
    def serves(self) -> bool:
        return "open" in self.steps

    def do_open(self) -> None:
        self.attempts += 1
        if self.attempts < 3:
            raise ChannelError("not there yet")
        self.steps += "open "

    def do_start(self) -> None:
        self.steps += "start "

    def do_close(self) -> None:
        self.steps += "close "


class Scene:
    def __init__(self) -> None:
        self.loop = Loop()
        self.lines = Lines()
        self.reports = 0
        agent: Any = SimpleNamespace(
            loop=self.loop, log=Log(self.lines), report_status=self.report_status
        )
        config = ChannelConfig("main", "virtio-serial", "/dev/x")
        self.channel = Late(agent, config, Caller("main", Policy()))

    def report_status(self) -> None:
        self.reports += 1

    def wait(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(base, "RETRY_INTERVAL", 0.02)
    return Scene()


def test_a_channel_that_is_open_is_started_at_once(scene: Scene) -> None:
    scene.channel.attempts = 2
    scene.channel.open()
    scene.channel.start()
    assert scene.channel.steps == "open start "
    assert scene.lines.texts == []


def test_one_that_is_missing_is_opened_as_soon_as_that_works(scene: Scene) -> None:
    with pytest.raises(ChannelError):
        scene.channel.open()
    scene.channel.start()
    scene.wait(0.2)
    assert scene.channel.attempts == 3
    assert scene.channel.steps == "open start "
    assert scene.lines.texts == ["channel '/dev/x' is open"]
    assert scene.reports == 1


def test_one_that_was_closed_is_not_opened_again(scene: Scene) -> None:
    scene.channel.start()
    scene.channel.close()
    scene.wait(0.2)
    assert (scene.channel.attempts, scene.channel.steps) == (0, "close ")
