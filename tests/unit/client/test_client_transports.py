"""The conversation over a socket: in step again after anything, never stuck with a full buffer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from qga.client import ProtocolError
from qga.client.transports import SocketTransport

LIMIT = 1 << 20

FIRST, SECOND = b'{"execute": "first"}\n', b'{"execute": "second"}\n'


def soon() -> float:
    return time.monotonic() + 30


@pytest.fixture
def ends() -> Iterator[tuple[SocketTransport, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    transport = SocketTransport(ours, LIMIT)
    with theirs:
        yield transport, theirs
        transport.close()


def answer_sync(peer: socket.socket, before: bytes = b"") -> bytes:
    """Read up to the sync request's end, answer it, and return what was read before it."""
    received = b""
    while b"\xff" not in received or not received.endswith(b"\n"):
        received += peer.recv(1 << 20)
    earlier, _, request = received.rpartition(b"\xff")
    number = json.loads(request)["arguments"]["id"]
    peer.sendall(before + b'\xff{"return": %d}\n' % number)
    return earlier


def test_the_first_exchange_synchronizes_and_the_next_does_not(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = ends
    received = []

    def serve() -> None:
        answer_sync(peer, before=b'garbage {"return": "of someone else"}\n')
        for reply in (b'{"return": 1}\n', b'{"return": 2}\n'):
            received.append(peer.recv(100))
            peer.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    assert transport.exchange(FIRST, LIMIT, soon()) == {"return": 1}
    assert transport.exchange(SECOND, LIMIT, soon()) == {"return": 2}
    thread.join()
    assert received == [FIRST, SECOND]


def test_a_request_half_sent_and_a_large_reply_nobody_read_do_not_block_each_other(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = ends
    sync = threading.Thread(target=answer_sync, args=(peer,))
    sync.start()
    transport.synchronize(soon())
    sync.join()
    request = b"x" * (8 << 20) + b"\n"
    with pytest.raises(TimeoutError):
        transport.exchange(request, LIMIT, time.monotonic() + 0.05)
    earlier = []

    def serve() -> None:
        peer.sendall(b"stale" * (1 << 20))
        earlier.append(answer_sync(peer))
        peer.recv(100)
        peer.sendall(b'{"return": 3}\n')

    thread = threading.Thread(target=serve)
    thread.start()
    assert transport.exchange(b"{}\n", LIMIT, soon()) == {"return": 3}
    thread.join()
    assert 0 < len(earlier[0]) < len(request)


def test_a_silent_agent_is_explained(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    transport, _ = ends
    with pytest.raises(TimeoutError, match="is the agent running in the guest"):
        transport.exchange(b"{}\n", LIMIT, time.monotonic() + 0.01)


def test_a_connection_that_is_reset_is_one_that_is_closed() -> None:
    """The kernel resets it when bytes were not read, and breaks the pipe of who sends more."""
    ours, theirs = socket.socketpair()
    transport = SocketTransport(ours, LIMIT)
    ours.send(b"unread")
    theirs.close()
    for _ in ("reset", "broken pipe"):
        with pytest.raises(ConnectionError) as caught:
            transport.synchronize(soon())
        assert str(caught.value) == (
            "the connection was closed at the other end; has the guest shut down or migrated?"
        )
    transport.close()


def test_a_closed_connection_is_an_oserror(ends: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = ends
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match="closed at the other end"):
        transport.synchronize(soon())


def test_a_reply_above_the_limit_leaves_the_connection_usable(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = ends

    def serve() -> None:
        answer_sync(peer)
        peer.recv(100)
        peer.sendall(b"x" * (LIMIT + 1) + b"\n")
        answer_sync(peer)
        peer.recv(100)
        peer.sendall(b'{"return": 3}\n')

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(ProtocolError, match="larger than"):
        transport.exchange(FIRST, LIMIT, soon())
    assert transport.exchange(SECOND, LIMIT, soon()) == {"return": 3}
    thread.join()


def test_an_extra_reply_does_not_answer_the_next_request(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = ends

    def serve() -> None:
        answer_sync(peer)
        peer.recv(100)
        peer.sendall(b'{"return": 3}\nsurplus\n')
        answer_sync(peer)
        peer.recv(100)
        peer.sendall(b'{"return": 4}\n')

    thread = threading.Thread(target=serve)
    thread.start()
    assert transport.exchange(FIRST, LIMIT, soon()) == {"return": 3}
    assert transport.exchange(SECOND, LIMIT, soon()) == {"return": 4}
    thread.join()
