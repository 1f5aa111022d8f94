"""The kernel reports that a port's client has left after the next one's request has come."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from select import EPOLLHUP, EPOLLIN, POLLHUP

import pytest

from qga import CommandGroup, command
from qga.agent import Agent
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving import port, session
from qga.settings.config import ChannelConfig, Config

FILL = b'{"execute": "qga-fill"}\n'
WAIT = b'{"execute": "qga-wait"}\n'
SYNC = b'{"execute": "guest-sync", "arguments": {"id": 7}}\n'
FILLED = {"return": "x" * 300_000}

# A hang-up is seen by an event, or by a read if the client is there again before the loop looks.
SIGNS = (EPOLLIN, EPOLLIN | EPOLLHUP)


class Group(CommandGroup):
    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.left = 0
        self.ready = threading.Event()

    def on_client_left(self, caller: Caller) -> None:
        self.left += 1

    @command(access="audit", blocking=False)
    def qga_fill(self) -> str:
        return "x" * 300_000

    @command(access="audit", blocking=True)
    def qga_wait(self) -> str:
        assert self.ready.wait(20)
        return "done"


class Port:
    """A port that the kernel takes for left while `left`; `host` is its other end."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = False
        self.loop = agent.loop
        self.host, self.guest = socket.socketpair()
        self.guest.setblocking(False)
        self.host.setblocking(False)
        self._read, self._write, self._state = os.read, os.write, port._state
        monkeypatch.setattr(os, "read", self.read)
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(port, "_state", self.state)
        monkeypatch.setattr(session, "PATIENCE", 60.0)
        self.session = session.Session(
            agent,
            self.guest.fileno(),
            Caller("main", Policy()),
            lambda *_: None,
            short_read_empties=False,
            outlives_peer=True,
        )
        self.session.start()

    def read(self, fd: int, size: int) -> bytes:
        try:
            return self._read(fd, size)
        except BlockingIOError:
            if self.left and fd == self.guest.fileno():
                return b""
            raise

    def write(self, fd: int, data: bytes) -> int:
        if self.left and fd == self.guest.fileno():
            raise BlockingIOError
        return self._write(fd, data)

    def state(self, fd: int) -> int:
        return POLLHUP if self.left else self._state(fd)

    def run(self, seconds: float = 0.02) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()

    def ask(self, request: bytes) -> None:
        self.host.sendall(request)
        self.run()

    def hang_up(self, sign: int) -> None:
        """The kernel learns that a client has left."""
        self.left = True
        self.session._on_events(sign)

    def answer(self) -> object:
        deadline = time.monotonic() + 20
        received = b""
        while not received.endswith(b"\n"):
            assert time.monotonic() < deadline, f"no answer, but {received[-100:]!r}"
            self.run()
            received += self.arrived()
        return json.loads(received)

    def arrived(self) -> bytes:
        try:
            return self.host.recv(1 << 20)
        except BlockingIOError:
            return b""

    def discard(self) -> None:
        """Drop what the client that leaves has not read."""
        while self.arrived():
            pass


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log())
    yield agent
    agent.close()


@pytest.fixture
def group(agent: Agent) -> Group:
    group = Group(agent)
    agent.registry.add(group)
    return group


@pytest.fixture
def opened(agent: Agent, group: Group, monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    opened = Port(agent, monkeypatch)
    with opened.host, opened.guest:
        yield opened
        group.ready.set()
        opened.session.close()


@pytest.mark.parametrize("sign", SIGNS)
def test_a_long_reply_is_whole(opened: Port, sign: int) -> None:
    opened.ask(FILL)
    opened.hang_up(sign)
    opened.left = False
    opened.run(0.2)
    assert opened.answer() == FILLED


@pytest.mark.parametrize("sign", SIGNS)
def test_what_runs_is_answered(opened: Port, group: Group, sign: int) -> None:
    opened.ask(WAIT)
    opened.hang_up(sign)
    opened.left = False
    opened.run(0.2)
    group.ready.set()
    assert opened.answer() == {"return": "done"}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("pause", [0, 0.2])
def test_a_request_in_two_pieces_is_answered(opened: Port, sign: int, pause: float) -> None:
    opened.ask(SYNC[:30])
    opened.hang_up(sign)
    opened.left = False
    opened.run(pause)
    opened.ask(SYNC[30:])
    assert opened.answer() == {"return": 7}


@pytest.mark.parametrize("sign", SIGNS)
def test_the_rest_of_a_request_may_not_be_read_yet(opened: Port, sign: int) -> None:
    """As on a busy guest, when it is found out who has left."""
    opened.ask(SYNC[:30])
    opened.hang_up(sign)
    opened.left = False
    opened.host.sendall(SYNC[30:])
    opened.session._settle()
    assert opened.answer() == {"return": 7}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("request_left", [FILL, WAIT, SYNC[:30]])
def test_the_next_client_gets_nothing_of_one_that_has_left(
    opened: Port, group: Group, sign: int, request_left: bytes
) -> None:
    opened.ask(request_left)
    opened.hang_up(sign)
    opened.run(0.2)
    assert group.left == 1
    opened.discard()
    opened.left = False
    group.ready.set()
    opened.ask(SYNC)
    assert opened.answer() == {"return": 7}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("request_left", [FILL, WAIT])
def test_nor_does_one_that_comes_and_asks_at_once(
    opened: Port, group: Group, sign: int, request_left: bytes
) -> None:
    opened.ask(request_left)
    opened.hang_up(sign)
    opened.discard()
    opened.left = False
    opened.ask(SYNC)
    group.ready.set()
    assert opened.answer() == {"return": 7}
    assert group.left == 1
