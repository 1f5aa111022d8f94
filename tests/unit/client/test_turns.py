"""When a client leaves its socket to others, and where it comes back to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from qga.client import ConnectError, GuestAgent, QueueFull, turns
from qga.client.threads import beside
from qga.client.turns import Turns
from tests.integration.agent_process import wait_for
from tests.unit.client_peer import Peer, Start


@pytest.fixture
def peer(start: Start, monkeypatch: pytest.MonkeyPatch) -> Peer:
    monkeypatch.setattr(turns, "LOOK", 0.0)
    return start({"guest-ping": lambda _: {}})


@pytest.fixture
def agent(peer: Peer) -> Iterator[GuestAgent]:
    with GuestAgent(peer.address) as agent:
        yield agent


@contextmanager
def connected(peer: Peer) -> Iterator[socket.socket]:
    """Another client; this waits until it has a place in the queue."""
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(peer.address.partition(":")[2])
        yield other


@pytest.fixture
def waiting(peer: Peer, agent: GuestAgent) -> Iterator[socket.socket]:
    """Another client, which waits for us to leave."""
    with connected(peer) as other:
        yield other


def test_nobody_waits(peer: Peer, agent: GuestAgent) -> None:
    mine = Turns(agent)
    mine.give_way()
    assert mine.is_ours()
    agent.ping()
    assert peer.syncs == 1


def test_the_turn_comes_when_the_other_has_left(
    peer: Peer, agent: GuestAgent, waiting: socket.socket
) -> None:
    mine = Turns(agent)
    mine.give_way()
    assert not any(mine.is_ours() for _ in range(100))
    waiting.close()
    wait_for(mine.is_ours, "our turn")
    agent.ping()
    assert len(peer.requests) == 1


def test_a_reply_that_is_expected_is_waited_for_first(
    agent: GuestAgent, waiting: socket.socket
) -> None:
    mine = Turns(agent)
    ticket = agent._submit("guest-ping")
    mine.give_way()
    mine.leave()
    assert mine.is_ours()
    assert agent._collect("guest-ping", ticket) == {}
    mine.give_way()
    assert not mine.is_ours()


def test_the_way_back_leads_to_the_same_socket(
    agent: GuestAgent, waiting: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(_deadline: float) -> Any:
        raise ConnectError("web", "the name leads elsewhere by now")

    monkeypatch.setattr(agent, "_open_transport", elsewhere)
    mine = Turns(agent)
    mine.give_way()
    assert not mine.is_ours()
    waiting.close()
    wait_for(mine.is_ours, "our turn")
    agent.ping()
    agent.close()
    with pytest.raises(ConnectError, match="elsewhere"):
        agent.ping()


def test_who_waits_for_too_long_is_told_why(
    agent: GuestAgent, waiting: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.0)
    mine = Turns(agent)
    mine.give_way()
    assert mine.is_ours()
    with pytest.raises(TimeoutError, match="another program is connected to this socket"):
        agent.call("guest-ping", timeout=0.2)


def test_who_leaves_the_queue_waits_when_it_asks_again(
    peer: Peer, agent: GuestAgent, waiting: socket.socket
) -> None:
    """If it left each time without having waited, it would never have its turn."""
    mine = Turns(agent)
    mine.give_way()
    assert not mine.is_ours()
    mine.leave()
    assert mine.is_ours()
    waiting.close()
    agent.ping()
    assert len(peer.requests) == 1


def test_a_full_queue_is_entered_when_there_is_room(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "socket", {"guest-ping": lambda _: {}}, backlog=0)
    with closing(peer), closing(GuestAgent(peer.address, timeout=30)) as agent:
        with connected(peer), connected(peer):
            with pytest.raises(QueueFull, match="too many clients are waiting"):
                agent.call("guest-ping", timeout=0.1)
            pinging = beside(agent.ping)
            with pytest.raises(FutureTimeout):
                pinging.result(0.2)
        pinging.result(30)
    assert len(peer.requests) == 1


def test_nothing_is_left_before_the_first_request(peer: Peer) -> None:
    with closing(GuestAgent(peer.address)) as agent:
        mine = Turns(agent)
        mine.give_way()
        mine.leave()
        assert mine.is_ours()
