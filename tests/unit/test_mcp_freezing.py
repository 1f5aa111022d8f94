"""Whatever fails on the host, the MCP server leaves no guest frozen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread, Timer
from typing import Any

import pytest

from qga.mcp import freezing
from qga.mcp.call import Call
from qga.mcp.tools import Service
from qga.mcp.trail import Trail


class Agent:
    """An agent, and the result of its freeze."""

    count = 1

    def __init__(self) -> None:
        self.frozen = True

    def freeze(self, _: object) -> Agent:
        return self

    def thaw(self) -> int:
        self.frozen = False
        return 1


class Guests:
    """The first one cannot be reached."""

    def __init__(self) -> None:
        self.agents = {"gone": Agent(), "web": Agent(), "db": Agent()}

    @contextmanager
    def agent(self, name: str, call: Call) -> Iterator[Agent]:
        if name == "gone":
            raise OSError("no descriptor is left")
        yield self.agents[name]


def service_of(guests: Any, trail: Trail) -> Service:
    return Service(guests, trail, frozenset(), 60, [], 0, {})


@pytest.fixture
def full() -> Iterator[Trail]:
    with closing(Trail("/dev/full", io.StringIO())) as trail:
        yield trail


def test_all_are_thawed_though_nothing_can_be_logged(full: Trail) -> None:
    guests = Guests()
    service = service_of(guests, full)
    service.frozen.update({name: Timer(60, lambda: None) for name in guests.agents})
    freezing.thaw_all(service)
    assert [each.frozen for each in guests.agents.values()] == [True, False, False]


def test_a_freeze_that_nobody_would_end(full: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    guests = Guests()
    monkeypatch.setattr(Timer, "start", fail)
    with pytest.raises(RuntimeError):
        freezing.freeze_filesystems(service_of(guests, full), Call(60), "web")
    assert not guests.agents["web"].frozen


def test_a_call_that_cannot_be_logged(full: Trail) -> None:
    with pytest.raises(OSError, match="No space left"):
        full.begin("freeze_filesystems", {"guest": "web"}, [])
    full.end(1, "ok", 0)
    full.note("the disk is full")
