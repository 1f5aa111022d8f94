"""A connection that is closed is gone, with everything that it has kept."""

from __future__ import annotations

import gc
import json
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.agent import Agent
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving.session import Session
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
