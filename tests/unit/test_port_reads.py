"""What a virtio port gives buffer by buffer is put together before it is looked at."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.agent import Agent
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving import port
from qga.serving.session import READ_SIZE, Session
from qga.settings.config import ChannelConfig, Config

BUFFER = port.BUFFER


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket whose reads give one packet each, as those of a port give a buffer."""
    host, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guest.setblocking(False)
    host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_SIZE)
    with host, guest:
        yield host, guest


def read_on(guest: socket.socket) -> bytes:
    return port.read_on(guest.fileno(), guest.recv(READ_SIZE), READ_SIZE)


def buffers(number: int) -> list[bytes]:
    return [bytes([at]) * BUFFER for at in range(number)]


@pytest.mark.parametrize("end", [[], [b"the end"]])
def test_up_to_a_buffer_that_is_not_full(
    ends: tuple[socket.socket, socket.socket], end: list[bytes]
) -> None:
    host, guest = ends
    pieces = buffers(5) + end
    for piece in pieces:
        host.send(piece)
    assert read_on(guest) == b"".join(pieces)


def test_what_comes_behind_a_short_buffer_stays(ends: tuple[socket.socket, socket.socket]) -> None:
    host, guest = ends
    for piece in [*buffers(1), b"the end", b"another"]:
        host.send(piece)
    assert read_on(guest) == buffers(1)[0] + b"the end"
    assert guest.recv(100) == b"another"


def test_not_without_end(ends: tuple[socket.socket, socket.socket]) -> None:
    host, guest = ends
    number = READ_SIZE // BUFFER
    for piece in buffers(number + 1):
        host.send(piece)
    assert read_on(guest) == b"".join(buffers(number))
    assert len(guest.recv(READ_SIZE)) == BUFFER


def test_a_host_that_leaves_is_seen_by_the_next_read(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    host, guest = ends
    host.send(buffers(1)[0])
    host.close()
    assert read_on(guest) == buffers(1)[0]
    assert guest.recv(1) == b""


def test_a_host_that_leaves_gives_up_what_runs_for_it(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    """So that the next one need not wait for the checksum of a terabyte."""
    host, guest = ends
    file = tmp_path / "large"
    file.touch()
    os.truncate(file, 2**40)
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "socket"))
    agent = Agent(Config((main,), statedir=str(tmp_path)), Log())
    caller = Caller("main", Policy())
    session = Session(
        agent, guest.fileno(), caller, print, short_read_empties=False, outlives_peer=True
    )
    session.start()
    agent.loop.call_later(0.3, host.close)
    agent.loop.call_later(1.5, agent.loop.stop)
    host.send(
        json.dumps({"execute": "qga-file-checksum", "arguments": {"path": str(file)}}).encode()
    )
    agent.loop.run()
    assert session._under_way.running is None
    session.close()
    agent.close()
