"""Connections that do not read, only send, or hang, and what they cost the agent."""

from __future__ import annotations

import base64
import os
import random
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qga.loop import Loop
from qga.serving.pending import MAX_INPUT
from qga.settings.values import MAX_THREADS
from tests.integration.agent_process import AgentProcess, Client, listening, request, wait_for
from tests.integration.gates import Gate, with_gates


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with with_gates(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


def test_a_client_that_leaves_its_replies_unread_does_no_harm(
    agent: AgentProcess, client: Client
) -> None:
    handle = client.call("guest-file-open", path="/dev/zero")
    for _ in range(20):
        with agent.connect() as leaver:
            for _ in range(20):
                leaver.send(request("guest-file-read", handle=handle, count=1_000_000))
                leaver.send(request("guest-ping"))
    assert client.call("guest-ping") == {}
    client.call("guest-file-close", handle=handle)


def test_a_client_that_does_not_read_costs_bounded_memory(
    agent: AgentProcess, tmp_path: Path
) -> None:
    size, number = 32 * 1024, 1500
    content = random.Random(1).randbytes(size)
    file = tmp_path / "big"
    with file.open("wb") as out:
        for at in range(number):
            out.write(at.to_bytes(4, "big") + content[4:])
    with listening(tmp_path) as agent, agent.connect() as other, agent.connect() as client:
        handle = other.call("guest-file-open", path=str(file))
        at_first = agent.memory("VmHWM")
        # All fit into the socket's buffer and what the agent reads before it stops.
        reads = (
            request("guest-file-read", tag=at, handle=handle, count=size) for at in range(number)
        )
        client.send(b"".join(reads))
        wait_for(lambda: stands_still(other, handle), "the agent has stopped reading")
        assert other.call("guest-file-seek", handle=handle, offset=0, whence="cur")["position"] < (
            number * size // 4
        )
        for at, reply in enumerate(client.replies(number)):
            assert reply["id"] == at
            piece = base64.b64decode(reply["return"]["buf-b64"])
            assert piece == at.to_bytes(4, "big") + content[4:]
        assert agent.memory("VmHWM") - at_first < 20 * 1024 * 1024


def stands_still(client: Client, handle: int) -> bool:
    """Whether the position of a file stays the same while the agent's loop runs."""
    positions = set()
    for _ in range(100):
        positions.add(
            client.call("guest-file-seek", handle=handle, offset=0, whence="cur")["position"]
        )
    return len(positions) == 1 and positions != {0}


def test_a_client_that_only_sends_is_not_read_for_ever(agent: AgentProcess, gate: Gate) -> None:
    """Behind a hanging command the agent reads a bounded number of requests."""
    at_first = agent.memory("VmRSS")
    with agent.connect() as client, agent.connect() as other:
        client.send(gate.request)
        gate.wait_until_reached()
        pings = request("guest-ping") * 1000
        client.socket.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 100_000_000:
                sent += client.socket.send(pings)
                other.call("guest-ping")
        assert agent.memory("VmRSS") - at_first < 20 * 1024 * 1024
        gate.open("")


@pytest.mark.parametrize("junk", [b"[$", b'{"execute":{,\xff', b"}", b"\xff"])
def test_junk_behind_a_request_is_answered_though_nothing_follows(
    agent: AgentProcess, junk: bytes
) -> None:
    """Bytes that were read but not decoded yet are decoded without a further event."""
    with agent.connect() as client:
        client.send(request("guest-ping") + junk * (90_000 // len(junk)) + b"\xff")
        client.send(request("guest-sync", id=7))
        client.half_close()
        replies = client.rest().splitlines()
    assert replies[0] == b'{"return": {}}'
    assert replies[-1] == b'{"return": 7}'
    assert len(replies) > 10


def test_a_sync_far_behind_a_command_that_hangs_is_seen(agent: AgentProcess, gate: Gate) -> None:
    """Within the limit on waiting input, however many tokens come before."""
    with agent.connect() as client:
        client.send(
            gate.request
            + request("guest-file-seek", handle=0, offset=0, whence="set") * 600
            + request("guest-sync", id=7)
        )
        assert client.result() == 7
        gate.open("")


def test_junk_of_one_client_does_not_hold_up_another(agent: AgentProcess) -> None:
    """96 KiB are decoded in turns. At once they would take some 50 ms, and those of 12 clients half
    a second."""
    junk, clients = b"[" * 96 * 1024, [agent.connect() for _ in range(12)]
    turns = 0
    with agent.connect() as other:
        for client in clients:
            client.socket.setblocking(False)
            client.socket.send(junk)
        before = processor_time(agent)
        while turns < 3 and processor_time(agent) - before < len(clients) * 0.03:
            other.call("guest-ping")
            turns += 1
    for client in clients:
        client.close()
    assert turns == 3


def test_a_client_that_only_sends_large_requests_is_not_read_for_ever(
    client: Client, gate: Gate
) -> None:
    """Only bytes behind the running command count, not all bytes of the connection."""
    large = request("guest-ping").replace(b"{", b"{" + b" " * 1_000_000)
    for _ in range(2):
        client.send(gate.request)
        gate.wait_until_reached()
        client.socket.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < MAX_INPUT * 2:
                wait_for_room(client)
                sent += client.socket.send(large[sent % len(large) :])
        assert sent > MAX_INPUT
        client.socket.setblocking(True)
        client.socket.settimeout(60)
        gate.open("open")
        client.send(large[sent % len(large) :])
        assert client.result() == "open"
        assert client.replies(sent // len(large) + 1) == [{"return": {}}] * (sent // len(large) + 1)


def processor_time(agent: AgentProcess) -> float:
    """Seconds (proc_pid_stat(5))."""
    times = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def wait_for_room(client: Client) -> None:
    """Wait until the agent has read some, if it still reads."""
    select.select([], [client.socket], [], 2)


def test_more_commands_than_threads_are_refused(tmp_path: Path, gate: Gate) -> None:
    """A refused command gets an error, quick commands continue, and it works again afterwards."""
    with with_gates(tmp_path, f"max-clients={MAX_THREADS + 2}") as agent, ExitStack() as stack:
        clients = [stack.enter_context(agent.connect()) for _ in range(MAX_THREADS)]
        for client in clients:
            client.send(gate.request)
        other = stack.enter_context(agent.connect())
        wait_for(lambda: agent.threads > MAX_THREADS, "all threads are busy")
        assert other.refusal("qga-echo", text="") == (
            f"{MAX_THREADS} commands are still running; try again when one has finished"
        )
        assert other.call("guest-ping") == {}

        def all_are_answered() -> bool:
            gate.open_for_all()
            return all(client.has_data() for client in clients)

        wait_for(all_are_answered, "all go on")
        assert other.call("qga-echo", text="again") == "again"
        assert agent.threads == MAX_THREADS + 1


def test_threads_have_no_arena_of_their_own(tmp_path: Path, gate: Gate) -> None:
    """An arena of malloc(3) reserves 64 MB, a stack 8; what is kept in each adds up."""
    number = 10
    with with_gates(tmp_path) as agent, ExitStack() as stack:
        at_first = agent.memory("VmSize")
        for _ in range(number):
            stack.enter_context(agent.connect()).send(gate.request)
        wait_for(lambda: agent.threads > number, "all threads are busy")
        assert agent.memory("VmSize") - at_first < number * 20 * 1024 * 1024
        gate.open_for_all()


def test_large_writes_leave_no_memory_behind(agent: AgentProcess, tmp_path: Path) -> None:
    with agent.connect() as client:
        handle = client.call("guest-file-open", path=str(tmp_path / "file"), mode="w")
        for size in (4 * 1024, 8 * 1024 * 1024):
            before = agent.memory("VmRSS")
            for _ in range(4):
                client.call("guest-file-write", handle=handle, buf_b64="A" * size)
        # Most of it is what the threads and modules that came into use take.
        wait_for(lambda: agent.memory("VmRSS") - before < 4_000_000, "the memory is given back")


def test_events_of_a_closed_descriptor_do_not_reach_its_successor() -> None:
    """A connection that ends may have its number taken over by one accepted at the same time."""
    loop = Loop()
    first, first_peer = socket.socketpair()
    old, old_peer = socket.socketpair()
    heard: list[int] = []

    def take_over(_events: int) -> None:
        loop.unwatch(first.fileno())
        number = old.fileno()
        loop.unwatch(number)
        old.close()
        os.dup2(first_peer.fileno(), number)
        loop.watch(number, heard.append)
        loop.stop()

    loop.watch(first.fileno(), take_over)
    loop.watch(old.fileno(), heard.append)
    number = old.fileno()
    first_peer.send(b"x")
    old_peer.close()
    loop.run()
    loop.close()
    os.close(number)
    first.close()
    first_peer.close()
    assert heard == []
