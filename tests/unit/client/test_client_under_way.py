"""Several requests under way: each caller gets its own reply, and doubt gives up all of them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from qga.client import AgentTimeout, CommandError, GuestAgent, ProtocolError
from qga.client.transports import MAX_UNDER_WAY, SocketTransport
from tests.unit.client.test_client_agent import File
from tests.unit.client_peer import LATE, Start

LIMIT = 1 << 20


class Peer:
    """The agent's end of a connection; it answers when it is told to."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(30)
        self.lines = end.makefile("rb")
        self.end = end

    def next_request(self) -> dict[str, Any]:
        request: dict[str, Any] = json.loads(self.lines.readline().lstrip(b"\xff"))
        return request

    def answer(self, request: dict[str, Any], value: object) -> None:
        self.end.sendall(json.dumps({"return": value, "id": request["id"]}).encode() + b"\n")

    def answer_sync(self) -> None:
        request = self.next_request()
        self.end.sendall(b"\xff")
        self.answer(request, request["arguments"]["id"])


@pytest.fixture
def ends() -> Iterator[tuple[SocketTransport, Peer]]:
    ours, theirs = socket.socketpair()
    transport = SocketTransport(ours, LIMIT)
    with theirs:
        peer = Peer(theirs)
        thread = threading.Thread(target=peer.answer_sync)
        thread.start()
        transport.synchronize(soon())
        thread.join()
        yield transport, peer
        transport.close()


def soon() -> float:
    return time.monotonic() + 30


def request(name: str) -> bytes:
    return b'{"execute": "%s"}\n' % name.encode()


def submit(transport: SocketTransport, *names: str) -> list[int]:
    return [transport.submit(request(name), LIMIT, soon()) for name in names]


def test_the_next_request_is_there_before_the_first_is_answered(
    ends: tuple[SocketTransport, Peer],
) -> None:
    transport, peer = ends
    tickets = submit(transport, "a", "b")
    requests = [peer.next_request(), peer.next_request()]
    for each in requests:
        peer.answer(each, each["execute"])
    assert [transport.collect(ticket, soon()) for ticket in tickets] == [
        {"return": each["execute"], "id": each["id"]} for each in requests
    ]


def test_another_exchange_does_not_take_their_replies(ends: tuple[SocketTransport, Peer]) -> None:
    transport, peer = ends
    first, unwanted = submit(transport, "a", "b")
    transport.discard(unwanted)

    def serve() -> None:
        for _ in range(3):
            asked = peer.next_request()
            peer.answer(asked, asked["execute"])

    thread = threading.Thread(target=serve)
    thread.start()
    assert transport.exchange(request("c"), LIMIT, soon())["return"] == "c"
    assert transport.collect(first, soon())["return"] == "a"
    with pytest.raises(TimeoutError, match="abandoned together"):
        transport.collect(unwanted, soon())
    thread.join()


def test_a_reply_that_does_not_come_gives_up_all_of_them(
    ends: tuple[SocketTransport, Peer],
) -> None:
    transport, peer = ends
    first, second = submit(transport, "a", "b")
    late = [peer.next_request(), peer.next_request()]
    with pytest.raises(TimeoutError):
        transport.collect(first, time.monotonic() + 0.01)
    with pytest.raises(TimeoutError, match="abandoned together"):
        transport.collect(second, soon())

    def serve() -> None:
        for each in late:
            peer.answer(each, "late")
        peer.answer_sync()
        asked = peer.next_request()
        peer.answer(asked, asked["execute"])

    thread = threading.Thread(target=serve)
    thread.start()
    assert transport.exchange(request("c"), LIMIT, soon())["return"] == "c"
    thread.join()


def test_another_call_takes_its_turn_while_a_file_is_read(start: Start) -> None:
    file = File(b"x" * 50)
    peer = start(file.handlers)
    with GuestAgent(peer.address) as agent, agent.opened("/f") as handle:
        pieces = agent.file_read_all(handle, 5)
        assert [next(pieces), next(pieces)] == [b"xxxxx", b"xxxxx"]
        assert agent.file_read(handle, 1).data == b"x"
        # What the read in between took is missing, and nothing else.
        assert len(b"".join(pieces)) == 50 - 5 - 5 - 1


def test_qemus_agent_gets_one_request_at_a_time(start: Start) -> None:
    """It loses a reply if the next request has come."""
    file = File(b"x" * 50)
    refusal = OSError("CommandNotFound", "The command qga-get-version has not been found")
    peer = start({**file.handlers, "qga-get-version": lambda _: refusal})
    with GuestAgent(peer.address) as agent:
        assert agent.read_file("/f", chunk=5) == b"x" * 50
    assert file.log == ["open /f r", *["read 5"] * 10, "read 0", "close"]
    versions = [each for each in peer.requests if each["execute"] == "qga-get-version"]
    assert len(versions) == 1


def test_an_error_ends_a_write_and_the_rest_is_not_sent(start: Start) -> None:
    file = File()

    def write(arguments: dict[str, Any]) -> object:
        if len(file.content) >= 20:
            return OSError("GenericError", "No space left on device")
        return file.write(arguments)

    peer = start({**file.handlers, "guest-file-write": write})
    with GuestAgent(peer.address) as agent, pytest.raises(CommandError, match="No space left"):
        agent.write_file("/f", bytes(100), chunk=5)
    asked = [each for each in peer.requests if each["execute"] == "guest-file-write"]
    assert len(asked) <= 4 + MAX_UNDER_WAY
    assert file.log[-1] == "close"


def test_a_piece_taken_in_part_before_the_next_is_an_error(start: Start) -> None:
    """The bytes of the next piece are in the file already, where these should be."""
    file = File()

    def write(arguments: dict[str, Any]) -> object:
        file.most = 3 if len(file.content) == 15 else 5
        return file.write(arguments)

    peer = start({**file.handlers, "guest-file-write": write})
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(ProtocolError, match="took 3 bytes of a piece, and then the next piece"),
    ):
        agent.write_file("/f", bytes(100), chunk=5)


def test_a_read_that_hangs_is_a_timeout_and_the_file_is_closed(start: Start) -> None:
    file = File(b"x" * 50)

    def read(arguments: dict[str, Any]) -> object:
        return LATE if len(file.log) > 4 else file.read(arguments)

    peer = start({**file.handlers, "guest-file-read": read})
    with GuestAgent(peer.address, timeout=1) as agent:
        with pytest.raises(AgentTimeout, match="guest-file-read"):
            agent.read_file("/f", chunk=5)
        assert file.log[-1] == "close"
