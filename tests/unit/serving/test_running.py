"""How long a connection waits for its command: command-timeout, patience, abandonment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from qga import CommandGroup, command
from qga.loop import Loop
from qga.plugin.entry import Command
from qga.plugin.registry import Registry
from qga.service.log import Log
from qga.serving import running
from qga.serving.output import Output
from qga.serving.pending import Pending
from qga.serving.running import Running, UnderWay
from qga.task import Task
from qga.wire.protocol import Request
from tests.unit.log_lines import Lines


class Some(CommandGroup):
    @command(overtakes=True)
    def qga_sync(self) -> None: ...

    @command()
    def qga_work(self) -> None: ...

    @command(timed=False)
    def qga_freeze(self) -> None: ...


class Scene:
    """A connection without a session: what waits, what is answered, what is logged."""

    def __init__(self, timeout: float) -> None:
        self.registry = Registry()
        self.registry.add(Some(None))  # type: ignore[arg-type]
        self.loop = Loop()
        self.lines = Lines()
        self.pending = Pending(self.registry)
        self.output = Output()
        self.closed = False
        self.proceeded = 0
        agent: Any = SimpleNamespace(
            loop=self.loop,
            log=Log(self.lines),
            config=SimpleNamespace(command_timeout=timeout),
        )
        self.under_way = UnderWay(agent, "main", self.pending, self.output)

    def proceed(self) -> None:
        self.proceeded += 1

    def begin(self, name: str = "qga-work", *, on_thread: bool = True) -> Running:
        connection: Any = self
        started = Running(self.command(name), 7, connection)
        started.task = Task() if on_thread else None
        self.under_way.begin(started)
        return started

    def command(self, name: str) -> Command:
        found = self.registry.get(name)
        assert found is not None
        return found

    def is_running(self, started: Running) -> bool:
        return self.under_way.running is started

    def queue(self, *names: str) -> None:
        self.pending.add([Request(name, {}, None) for name in names], 1)
        self.under_way.limit_patience()

    def wait(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()

    @property
    def answers(self) -> list[Any]:
        read_end, write_end = os.pipe()
        try:
            if self.output.size:
                self.output.write_to(write_end)
            os.close(write_end)
            return [json.loads(line) for line in os.read(read_end, 65536).splitlines()]
        finally:
            os.close(read_end)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    monkeypatch.setattr(running, "PATIENCE", 0.1)
    yield 0.1


def given_up(started: Running) -> bool:
    assert started.task is not None
    return started.task.given_up


def test_a_command_that_takes_too_long_is_answered_with_an_error() -> None:
    scene = Scene(0.1)
    started = scene.begin()
    scene.wait(0.3)
    [answer] = scene.answers
    assert answer["id"] == 7
    assert answer["error"]["desc"] == (
        "qga-work did not finish within 0.1 s (command-timeout); it may still be running"
    )
    assert scene.under_way.running is None
    assert given_up(started)
    assert scene.proceeded == 1
    [line] = scene.lines.texts
    assert re.fullmatch(r"qga-work timed out after \d+\.\d s; it may still be running", line)


def test_one_timer_serves_all_commands_of_a_connection() -> None:
    scene = Scene(0.2)
    for _ in range(1000):
        scene.begin()
        scene.under_way.running = None
    assert len(scene.loop._timers) == 1
    scene.wait(0.1)
    last = scene.begin()
    scene.wait(0.15)
    assert scene.is_running(last), "the limit counts from the start of each command"
    scene.wait(0.2)
    assert scene.under_way.running is None


@pytest.mark.parametrize("name", ["qga-work", "qga-freeze"])
def test_no_limit_without_a_timeout_or_for_a_command_that_must_finish(name: str) -> None:
    scene = Scene(0 if name == "qga-work" else 0.05)
    started = scene.begin(name)
    scene.wait(0.2)
    assert scene.under_way.running is started
    assert scene.answers == []


def test_a_sync_waits_for_a_while_and_drops_what_is_before_it(patience: float) -> None:
    scene = Scene(0)
    started = scene.begin()
    scene.queue("qga-work", "qga-work")
    scene.wait(2 * patience)
    assert scene.is_running(started), "nothing that waits overtakes"
    scene.queue("qga-sync")
    scene.wait(patience)
    assert scene.under_way.running is None
    assert given_up(started)
    assert len(scene.pending) == 1
    assert scene.answers == []
    [text] = scene.lines.texts
    assert text.startswith("qga-work abandoned after 0.")
    assert text.endswith("s with 2 later requests: the client sent a new sync")


def test_a_sync_that_was_queued_before_limits_the_wait_as_well(patience: float) -> None:
    scene = Scene(0)
    scene.queue("qga-work", "qga-sync")
    scene.pending.take()
    scene.begin(on_thread=False)
    scene.wait(2 * patience)
    assert scene.under_way.running is None
    assert scene.proceeded == 1


def test_a_command_that_finishes_in_time_is_not_abandoned(patience: float) -> None:
    scene = Scene(0)
    first = scene.begin()
    scene.queue("qga-sync")
    scene.under_way.running = None
    scene.pending.take()
    second = scene.begin()
    scene.wait(2 * patience)
    assert scene.is_running(second)
    assert not given_up(first)


def test_a_closed_connection_answers_nothing(patience: float) -> None:
    scene = Scene(0.05)
    scene.begin()
    scene.queue("qga-sync")
    scene.closed = True
    scene.wait(0.3)
    assert scene.answers == []
    assert scene.proceeded == 0
