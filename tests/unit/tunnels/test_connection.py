"""One end of a connection in a tunnel; a socket pair stands for the service."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from qga.loop import Loop
from qga.tunnels.connection import Connection
from qga.tunnels.frames import CREDIT, DATA, END, RESET, WINDOW, Frame, FrameReader, frame
from qga.tunnels.tunnel import Tunnel

NUMBER = 7
STEP = 20_000


class Recorder(Tunnel):
    """A tunnel that keeps what is sent to the other side."""

    has_room = True

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop, lambda: None)
        self.sent: list[Frame] = []

    def do_write(self, data: bytes | memoryview) -> int:
        self.sent += [each._replace(data=bytes(each.data)) for each in FrameReader().feed(data)]
        return len(data)

    def do_close(self) -> None:
        pass


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def tunnel(loop: Loop) -> Recorder:
    return Recorder(loop)


@pytest.fixture
def service(loop: Loop, tunnel: Recorder) -> Iterator[socket.socket]:
    """The other end of the socket of connection NUMBER, which takes little at once."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection = Connection(NUMBER, tunnel, loop, lambda: None)
    connection.attach(ours)
    tunnel.add(connection)
    with theirs:
        yield theirs
    tunnel.close()


def test_bytes_arrive_in_order_though_the_buffer_is_used_again(
    loop: Loop, tunnel: Recorder, service: socket.socket
) -> None:
    data = random.Random(3).randbytes(WINDOW)
    buffer, received = memoryview(bytearray(2 * STEP)), bytearray()
    for at in range(0, WINDOW, STEP):
        piece = frame(NUMBER, DATA, data[at : at + STEP])
        buffer[: len(piece)] = piece
        tunnel.receive(buffer[: len(piece)])
        buffer[: len(piece)] = bytes(len(piece))
        if at == STEP:
            received += service.recv(WINDOW)  # the socket takes more, but other bytes wait already
    tunnel.receive(frame(NUMBER, END))

    def take(_events: int) -> None:
        received.extend(service.recv(1000))
        if len(received) >= WINDOW:
            loop.stop()

    loop.watch(service.fileno(), take)
    loop.call_later(20, loop.stop)
    loop.run()
    loop.unwatch(service.fileno())
    assert bytes(received) == data
    assert service.recv(1) == b"", "the end follows the last byte"
    assert not [each for each in tunnel.sent if each.kind == RESET]


def test_credit_is_given_for_what_the_service_has_taken(
    tunnel: Recorder, service: socket.socket
) -> None:
    taken = 0
    for _ in range(20):
        tunnel.receive(frame(NUMBER, DATA, bytes(1000)))
        taken += len(service.recv(1000))
    assert not tunnel.sent
    for _ in range(50):
        tunnel.receive(frame(NUMBER, DATA, bytes(1000)))
        taken += len(service.recv(1000))
    (given,) = tunnel.sent
    assert (given.connection, given.kind) == (NUMBER, CREDIT)
    assert WINDOW // 4 <= given.credit <= taken


def test_more_than_the_credit_ends_the_tunnel(tunnel: Recorder, service: socket.socket) -> None:
    for _ in range(0, 2 * WINDOW, STEP):
        tunnel.receive(frame(NUMBER, DATA, bytes(STEP)))
    assert tunnel.closed
    assert sum(iter(lambda: len(service.recv(WINDOW)), 0)) < WINDOW


def test_a_service_that_has_gone_is_reset(tunnel: Recorder, service: socket.socket) -> None:
    service.close()
    tunnel.receive(frame(NUMBER, DATA, b"to nobody"))
    assert tunnel.sent[-1].kind == RESET
    assert not tunnel.connections
    assert not tunnel.closed
