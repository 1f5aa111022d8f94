"""Tunnels and watches against a guest that lies: nothing hangs, nothing is kept, others go on."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from qga.client import AgentError, GuestAgent, tunnel_ends, watching
from qga.client.data_ports import DataPorts
from qga.client.tunnels import GuestTunnel, Outcome, Target
from qga.tunnels.frames import (
    CREDIT,
    DATA,
    ECHO,
    END,
    HEAD,
    MAX_DATA,
    OPENED,
    RESET,
    WINDOW,
    credit_frame,
    frame,
    reset_frame,
)
from tests.unit.client_peer import Peer

AGENT, PORT = "org.qemu.guest_agent.0", "org.qga.data.0"
SERVICE = Target("127.0.0.1", 80)
MANY = 1000


class Liar:
    """A guest with one data port, at whose end `lie` writes whatever it wants.

    numbers: what qga-connect returns, one after the other.
    """

    def __init__(self, folder: Path, numbers: Iterator[int]) -> None:
        self.folder = folder
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / PORT))
        self._listener.listen()
        connected = itertools.chain([False], itertools.repeat(True))
        self.peer = Peer(
            folder / AGENT,
            {
                "qga-get-ports": lambda _: [
                    {"name": PORT, "device": "x", "busy": False, "host-connected": next(connected)}
                ],
                "qga-tunnel": lambda _: {"tunnel": 1},
                "qga-connect": lambda _: {"connection": next(numbers)},
                "qga-watch": lambda _: {"watch": 7, "events": ["address"], "agent-started-ms": 1},
            },
        )

    def close(self) -> None:
        self.peer.close()
        self._listener.close()

    @contextmanager
    def data_port(self) -> Iterator[socket.socket]:
        link = self._listener.accept()[0]
        with link:
            yield link


@contextmanager
def tunnel_to(
    folder: Path, numbers: Iterator[int]
) -> Iterator[tuple[Liar, GuestTunnel, socket.socket]]:
    guest = Liar(folder, numbers)
    with ExitStack() as stack:
        stack.callback(guest.close)
        agent = stack.enter_context(GuestAgent(guest.peer.address, 20))
        tunnel = stack.enter_context(GuestTunnel(agent, DataPorts(agent.address)))
        assert tunnel.port == PORT
        yield guest, tunnel, stack.enter_context(guest.data_port())


def is_closed(connection: socket.socket, seconds: float = 20) -> bool:
    connection.settimeout(seconds)
    with suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


FRAMES = {
    "no frames": b"\xff" * 100,
    "an unknown kind": frame(1, 99),
    "a credit without a number": frame(1, CREDIT),
    "a reset that is too long": HEAD.pack(1, RESET, 2000),
    "more data than there is credit for": frame(1, DATA, bytes(MAX_DATA)) * 20,
    "data after the end": frame(1, END) + frame(1, DATA, b"x"),
    "a reset of all": reset_frame(0, "\x1b[2J\xff" * 100),
}


@pytest.mark.parametrize("lie", FRAMES)
def test_frames_that_a_guest_must_not_send(tmp_path: Path, lie: str) -> None:
    """All connections are reset, and the tunnel is over. `ours` reads nothing."""
    with tunnel_to(tmp_path, itertools.count(1)) as (_, tunnel, port):
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        outcome = Outcome()
        tunnel.join(theirs, SERVICE, outcome=outcome)
        port.sendall(credit_frame(1, OPENED, WINDOW))
        assert outcome.decided.wait(10)
        with suppress(ConnectionError):
            port.sendall(FRAMES[lie])
        deadline = time.monotonic() + 20
        while not tunnel.closed and time.monotonic() < deadline:
            time.sleep(0.01)
        assert tunnel.closed
        with pytest.raises(AgentError):
            tunnel.connect(SERVICE, 1)
        ours.close()


def test_a_number_that_comes_twice(tmp_path: Path) -> None:
    """Both are reset: none is forgotten with its client waiting for ever."""
    with tunnel_to(tmp_path, itertools.repeat(5)) as (_, tunnel, _port):
        pairs = [socket.socketpair() for _ in range(2)]
        for _, theirs in pairs:
            tunnel.join(theirs, SERVICE)
        assert all(is_closed(ours) for ours, _ in pairs)
        assert tunnel.reason == "the tunnel has ended: the guest gave two connections one number"
        for ours, _ in pairs:
            ours.close()


def test_a_guest_that_says_nothing_of_a_connection(tmp_path: Path) -> None:
    before = descriptors()
    with tunnel_to(tmp_path, itertools.count(1)) as (_, tunnel, _port):
        others = descriptors()
        pairs = [socket.socketpair() for _ in range(50)]
        for _, theirs in pairs:
            tunnel.join(theirs, SERVICE, timeout=0.1)
        assert all(is_closed(ours) for ours, _ in pairs)
        for ours, _ in pairs:
            ours.close()
        assert descriptors() <= others + 1  # perhaps that of the agent's connection
    assert descriptors() <= before


def test_a_thousand_connections(tmp_path: Path) -> None:
    """More than a tunnel has are reset at once; those that are in it go on."""
    with tunnel_to(tmp_path, itertools.count(1)) as (_, tunnel, port):
        pairs = []
        failed: list[str] = []
        for _ in range(MANY):
            ours, theirs = socket.socketpair()
            tunnel.join(theirs, SERVICE, 60, Outcome(failed.append))
            pairs.append(ours)
            while len(pairs) - len(failed) > tunnel_ends.MOST_CONNECTIONS:
                time.sleep(0.001)
        assert failed == [tunnel_ends.FULL] * (MANY - tunnel_ends.MOST_CONNECTIONS)
        port.sendall(credit_frame(1, OPENED, WINDOW) + frame(1, DATA, b"hello"))
        assert pairs[0].recv(5) == b"hello"
        for ours in pairs:
            ours.close()


def test_endless_frames_do_not_stop_a_tunnel_from_being_closed(tmp_path: Path) -> None:
    """Of a guest that reads nothing."""
    flood = (frame(0, ECHO, b"x" * 16) + credit_frame(1, CREDIT, 1) + frame(9, END)) * 500
    ended = threading.Event()

    def pour(port: socket.socket) -> None:
        with suppress(OSError):
            while True:
                port.sendall(flood)
        ended.set()

    with tunnel_to(tmp_path, itertools.count(1)) as (_, tunnel, port):
        ours, theirs = socket.socketpair()
        tunnel.join(theirs, SERVICE)
        threading.Thread(target=pour, args=(port,), daemon=True).start()
        time.sleep(0.5)
        begin = time.monotonic()
        tunnel.close()
        assert time.monotonic() - begin < 10
        assert ended.wait(10)
        ours.close()


LINES: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"garbage\n" * 1000,
    "of another watch": lambda: b'{"event":"watching","time-ms":1,"watch":8}\n' * 1000,
    "without an end": lambda: b"x" * 8000,
}


@pytest.mark.parametrize("lines", LINES)
def test_a_watch_that_never_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    monkeypatch.setattr(watching, "FIRST_LINE_PATIENCE", 1.0)
    guest = Liar(tmp_path, itertools.count(1))

    def pour() -> None:
        with guest.data_port() as port, suppress(OSError):
            while True:
                port.sendall(LINES[lines]())

    threading.Thread(target=pour, daemon=True).start()
    try:
        with GuestAgent(guest.peer.address, 20) as agent:
            begin = time.monotonic()
            with pytest.raises(AgentError):
                watch(agent)
            assert time.monotonic() - begin < 10
    finally:
        guest.close()


def watch(agent: GuestAgent) -> Any:
    with agent.watch(ports=DataPorts(agent.address)) as events:
        return events.next(1)
