"""Command groups hear of every client that leaves, also where the connection stays."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.agent import Agent
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving.session import MAX_OUTPUT, Session
from qga.settings.config import ChannelConfig, Config

PING = b'{"execute": "guest-ping"}\n'


class Group:
    """Hears of it, and stops the loop."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.left: list[str] = []

    def on_client_left(self, caller: Caller) -> None:
        self.left.append(caller.channel)
        self.agent.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def agent(tmp_path: Path, path: Path) -> Iterator[Agent]:
    main = ChannelConfig(method="unix-listen", path=str(path))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log())
    agent.loop.call_later(60, agent.stop)
    yield agent
    agent.close()


@pytest.fixture
def group(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Group:
    group = Group(agent)
    monkeypatch.setattr(agent, "_notify_groups", lambda call: call(group))
    for method in ("start", "stop", "on_connect", "on_disconnect"):
        setattr(group, method, lambda *_: None)
    return group


def when_answered(agent: Agent, client: socket.socket, then: Callable[[], None]) -> None:
    """Call `then` on the loop when there is a reply to read."""

    def answered(_events: int) -> None:
        agent.loop.unwatch(client.fileno())
        then()

    agent.loop.watch(client.fileno(), answered)


def leave(client: socket.socket) -> None:
    """With its reply read: else the connection is reset, which a port cannot be."""
    client.recv(1000)
    client.close()


def test_one_of_a_socket(agent: Agent, group: Group, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        agent.open()
        client.connect(str(path))
        client.sendall(PING)
        when_answered(agent, client, lambda: leave(client))
        agent.run()
    assert group.left == ["main"]


@pytest.fixture
def port(agent: Agent) -> Iterator[tuple[Session, socket.socket]]:
    """A session that its host may leave, and the host."""
    host, guest = socket.socketpair()
    with host, guest:
        guest.setblocking(False)
        session = Session(
            agent,
            guest.fileno(),
            Caller("port", Policy()),
            print,
            short_read_empties=False,
            outlives_peer=True,
        )
        session.start()
        yield session, host
        session.close()


def test_the_host_of_a_port(
    agent: Agent, group: Group, port: tuple[Session, socket.socket]
) -> None:
    _, host = port
    host.sendall(PING)
    when_answered(agent, host, lambda: leave(host))
    agent.loop.run()
    assert group.left == ["port"]


def test_the_host_of_a_port_that_leaves_much_unread(
    agent: Agent, group: Group, port: tuple[Session, socket.socket], tmp_path: Path
) -> None:
    """The next one does not get the rest, although nothing is read while so much waits."""
    session, host = port
    (tmp_path / "large").write_bytes(bytes(4 * MAX_OUTPUT))

    def read_it() -> None:
        handle = json.loads(host.recv(1000))["return"]
        host.sendall(request("guest-file-read", handle=handle, count=4 * MAX_OUTPUT))
        leave_in_the_middle()

    def leave_in_the_middle() -> None:
        if session._output.size <= MAX_OUTPUT:
            agent.loop.call_later(0.05, leave_in_the_middle)
            return
        host.recv(1000)
        host.shutdown(socket.SHUT_RDWR)

    host.sendall(request("guest-file-open", path=str(tmp_path / "large")))
    when_answered(agent, host, read_it)
    agent.loop.run()
    assert group.left == ["port"]
    assert (session._output.size, session.closed) == (0, False)


def request(command: str, **arguments: Any) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode()
