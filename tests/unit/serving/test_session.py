"""A connection that is closed is gone, with everything that it has kept."""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from qga.agent import Agent
from qga.loop import Loop
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving.session import Session
from qga.serving.turns import Turns
from qga.settings.config import ChannelConfig, Config


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path), command_timeout=60), Log())
    yield agent
    agent.close()


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def request(execute: str, **arguments: object) -> bytes:
    return json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n"


def connect(agent: Agent, channel: str, stack: ExitStack) -> socket.socket:
    """A client's end of a connection that the agent serves."""
    here, there = map(stack.enter_context, socket.socketpair())
    here.setblocking(False)
    there.setblocking(False)
    Session(
        agent,
        there.fileno(),
        Caller(channel, Policy()),
        lambda session, _error: session.close(),
        short_read_empties=True,
        outlives_peer=False,
    ).start()
    return here


def test_clients_that_become_active_at_once_do_not_keep_another_waiting(agent: Agent) -> None:
    flood = request("guest-ping") * 2000  # takes longer than a turn
    answered: list[int] = []

    def begin() -> None:
        agent.loop.unwatch(trigger)
        other.sendall(request("guest-ping"))

    def go_on() -> None:
        answered.append(len(select.select(crowd, [], [], 0)[0]))
        if len(answered) == 3:
            agent.loop.stop()
        other.recv(100)
        other.sendall(request("guest-ping"))

    with ExitStack() as stack:
        trigger, start = os.pipe()
        agent.loop.watch(trigger, lambda _events: begin())
        os.write(start, b"x")
        crowd = [connect(agent, "main", stack) for _ in range(50)]
        other = connect(agent, "other", stack)
        for client in crowd:
            client.sendall(flood)
        agent.loop.watch(other.fileno(), lambda _events: go_on())
        agent.loop.run()
        os.close(trigger)
        os.close(start)
    assert max(answered) < len(crowd)


def test_each_channel_has_its_turn_however_many_connections_others_have() -> None:
    loop = Loop()
    had: list[tuple[str, int]] = []
    turns: Any = Turns(loop)

    class Connection:
        def __init__(self, channel: str, number: int) -> None:
            self.caller = Caller(channel, Policy())
            self._number = number

        def take_turn(self) -> None:
            had.append((self.caller.channel, self._number))
            if len(had) < 7:
                turns.wait(self)
            if len(had) == 11:
                loop.stop()

    waiting: list[Any] = [Connection("main", number) for number in range(3)]
    waiting += [Connection("other", 0), Connection("third", 0)]
    for each in waiting:
        turns.wait(each)
    loop.run()
    loop.close()
    assert had[:6] == [
        ("main", 0),
        ("other", 0),
        ("third", 0),
        ("main", 1),
        ("other", 0),
        ("third", 0),
    ]
    assert had[6] == ("main", 2)
    assert {*had} == {(each.caller.channel, each._number) for each in waiting}


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize(
    "sent",
    [
        request("guest-ping"),
        request("qga-file-checksum", path="/etc/passwd"),
        b'{"execute": "guest-ping", "arguments": {"x": "' + 100_000 * b"x",
    ],
    ids=["quick", "blocking", "half a request"],
)
def test_a_closed_connection_needs_no_garbage_collector(agent: Agent, sent: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.setblocking(False)
        ended: list[OSError | None] = []
        session = Session(
            agent,
            there.fileno(),
            Caller("main", Policy()),
            lambda _session, error: ended.append(error),
            short_read_empties=True,
            outlives_peer=False,
        )
        session.start()
        here.sendall(sent)
        agent.loop.call_later(0.3, lambda: here.shutdown(socket.SHUT_WR))
        agent.loop.call_later(0.6, agent.loop.stop)
        agent.loop.run()
        assert len(ended) == 1
        trace = weakref.ref(session)
        del session
        assert trace() is None
