"""Nobody waits for the thread of a tunnel that has died."""

from __future__ import annotations

import socket
from threading import Event, Thread
from typing import Any

import pytest

from qga.client.errors import ConnectError
from qga.client.tunnels import GuestTunnel, Outcome, Target
from qga.loop import Loop


class Agent:
    """It opens a tunnel, which ends before anything is exchanged."""

    address = "unix:/socket"

    def __init__(self) -> None:
        self.closed: list[int] = []

    def tunnel_open(self, port: object) -> int:
        return 1

    def tunnel_connect(self, *_: object, **__: object) -> int:
        return 1

    def tunnel_close(self, number: int) -> None:
        self.closed.append(number)


class NoPorts:
    def open_free(self, agent: object) -> None:
        return None


def test_a_loop_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Loop) -> None:
        raise MemoryError("no memory for events")

    monkeypatch.setattr(Loop, "run", fail)
    agent: Any = Agent()
    ports: Any = NoPorts()
    with GuestTunnel(agent, ports) as tunnel:
        tunnel._thread.join(60)
        assert tunnel.reason == "the tunnel has ended: Cannot allocate memory"
        with pytest.raises(ConnectError, match="Cannot allocate memory"):
            tunnel.connect(Target("localhost", 22))


@pytest.mark.parametrize("ends", ["before it is posted", "after it is posted"])
def test_a_loop_that_fails_while_a_connection_is_added(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """The connection is reset; otherwise its client would wait for ever."""
    fails = Event()

    def fail_later(_: Loop) -> None:
        fails.wait(60)
        raise MemoryError("no memory for events")

    def end(tunnel: GuestTunnel) -> int:
        fails.set()
        tunnel._thread.join(60)
        return 1

    monkeypatch.setattr(Loop, "run", fail_later)
    agent: Any = Agent()
    ports: Any = NoPorts()
    ours, theirs = socket.socketpair()
    with ours, GuestTunnel(agent, ports) as tunnel:
        if ends == "before it is posted":
            agent.tunnel_connect = lambda *_, **__: end(tunnel)
        outcome = Outcome()
        tunnel.join(theirs, Target("localhost", 22), outcome=outcome)
        end(tunnel)
        assert outcome.decided.wait(60)
        assert outcome.reason == "the tunnel has ended: Cannot allocate memory"
        assert ours.recv(1) == b""


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays open, and `qgactl forward` tries again for the next connection."""

    def fail(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", fail)
    agent: Any = Agent()
    ports: Any = NoPorts()
    with pytest.raises(ConnectError, match="can't start new thread"):
        GuestTunnel(agent, ports)
    assert agent.closed == [1]
