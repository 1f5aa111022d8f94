"""Connections: order of replies, several at once, clients that do not read, hanging commands."""

from __future__ import annotations

import base64
import json
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.differences import differs
from tests.integration.agent_process import AgentProcess, Client, Refused, request, wait_for
from tests.integration.gates import Gate, with_gates


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with with_gates(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


def mixed_requests() -> tuple[bytes, list[tuple[int, Any]]]:
    """Send quick and blocking commands, valid and not, in turn; id and outcome of each reply."""
    requests = b""
    replies: list[tuple[int, Any]] = []
    for number in range(60):
        for piece, outcome in (
            (request("guest-ping", tag=number), {}),
            (request("qga-echo", tag=number, text=f"text {number}"), f"text {number}"),
            (request("qga-nothing", tag=number), "CommandNotFound"),
            (request("guest-file-read", tag=number, handle=7), "GenericError"),
        ):
            requests += piece
            replies.append((number, outcome))
    return requests, replies


def outcome_of(reply: dict[str, Any]) -> tuple[int, Any]:
    return reply["id"], reply["error"]["class"] if "error" in reply else reply["return"]


@pytest.mark.parametrize("size", [1_000_000, 1000, 7, 1])
def test_replies_keep_the_order_of_the_requests(client: Client, size: int) -> None:
    requests, expected = mixed_requests()
    client.send(*(requests[at : at + size] for at in range(0, len(requests), size)))
    assert [outcome_of(reply) for reply in client.replies(len(expected))] == expected


def test_an_id_is_returned_as_it_came(client: Client) -> None:
    for tag in ("text", 0, -5, 2**63, 1.5, None, True, [1, {"a": []}], {"k": "v"}):
        client.send(b'{"execute": "guest-ping", "id": ' + json.dumps(tag).encode() + b"}")
        reply = client.reply()
        assert reply == {"return": {}, "id": tag}
        assert list(reply) == ["return", "id"]
    client.send(b'{"execute": "guest-ping"}')
    assert client.line() == b'{"return": {}}\n'


def test_a_blocking_command_holds_up_its_own_connection_only(
    agent: AgentProcess, client: Client, gate: Gate
) -> None:
    client.send(gate.request, request("guest-ping", tag=1))
    gate.wait_until_reached()
    with agent.connect() as other:
        assert other.call("guest-ping") == {}
        assert other.call("qga-echo", text="me, too") == "me, too"
    gate.open("open")
    assert client.replies(2) == [{"return": "open", "id": "gate gate"}, {"return": {}, "id": 1}]


def test_a_command_that_says_when_it_may_wait_goes_to_a_worker_only_then(tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    with with_gates(tmp_path) as agent, agent.connect() as client:
        assert client.call("qga-thread") == "MainThread"
        busy.touch()
        assert client.call("qga-thread") == "qga-worker"
        busy.unlink()
        assert client.call("qga-thread") == "MainThread"


@differs("connection-of-its-own")
def test_sixteen_clients_at_once_and_the_next_one_waits(agent: AgentProcess) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(agent.connect()) for _ in range(16)]
        for client in clients:
            assert client.call("guest-ping") == {}
        with agent.connect() as one_too_many:
            one_too_many.send(request("guest-ping", tag="at last"))
            for client in clients * 5:
                assert client.call("guest-ping") == {}
            assert not one_too_many.has_data()
            clients[3].close()
            assert one_too_many.reply() == {"return": {}, "id": "at last"}


def test_the_number_of_clients_can_be_set(tmp_path: Path) -> None:
    with with_gates(tmp_path, "max-clients=1\n") as agent, agent.connect() as first:
        first.call("guest-ping")
        with agent.connect() as second:
            second.send(request("guest-ping"))
            for _ in range(50):
                first.call("guest-ping")
            assert not second.has_data()
            first.half_close()
            assert first.rest() == b""
            assert second.result() == {}


def test_two_hundred_more_may_wait(tmp_path: Path) -> None:
    with with_gates(tmp_path, "max-clients=1\n") as agent, ExitStack() as stack:
        agent.connect().close()
        waiting = [stack.enter_context(agent.connect()) for _ in range(200)]
        for client in waiting:
            assert client.call("guest-ping") == {}
            client.close()


def test_those_who_left_with_a_command_that_hangs_take_no_place(tmp_path: Path, gate: Gate) -> None:
    with with_gates(tmp_path, "max-clients=2\n") as agent:
        for _ in range(5):
            with agent.connect() as leaver:
                leaver.send(gate.request)
                gate.wait_until_reached()
        with agent.connect() as client:
            assert client.call("guest-ping") == {}


def test_what_was_sent_before_the_end_is_answered(client: Client) -> None:
    client.send(request("qga-echo", text="a"), request("guest-ping"), b'{"execute": "guest-p')
    client.half_close()
    assert client.rest() == b'{"return": "a"}\n{"return": {}}\n'


def test_a_command_that_runs_at_the_end_is_answered(client: Client, gate: Gate) -> None:
    client.send(gate.request, request("guest-ping"))
    client.half_close()
    gate.wait_until_reached()
    gate.open("late")
    assert client.rest() == b'{"return": "late", "id": "gate gate"}\n{"return": {}}\n'


def test_what_was_sent_is_done_although_the_client_has_left(
    agent: AgentProcess, client: Client, gate: Gate, tmp_path: Path
) -> None:
    last = tmp_path / "last"
    with agent.connect() as leaver:
        leaver.send(gate.request)
        gate.wait_until_reached()
        leaver.send(request("guest-file-open", path=str(last), mode="w"))
    gate.open("nobody listens")
    wait_for(last.exists, "the second request is carried out")
    assert client.call("guest-ping") == {}


@pytest.mark.parametrize("sync", ["guest-sync", "guest-sync-delimited"])
def test_a_sync_overtakes_a_command_that_hangs(
    agent: AgentProcess, client: Client, gate: Gate, sync: str
) -> None:
    client.send(gate.request, request("guest-ping", tag="dropped with it"))
    gate.wait_until_reached()
    client.send(request(sync, id=4711))
    delimiter = b"\xff" if sync == "guest-sync-delimited" else b""
    assert client.line() == delimiter + b'{"return": 4711}\n'
    agent.wait_for_log("qga-wait abandoned")
    assert client.call("qga-echo", text="on a thread of its own") == "on a thread of its own"
    gate.open("too late")
    agent.wait_for_log("its reply is dropped")
    client.send(request("guest-ping", tag=1), request("qga-echo", tag=2, text=""))
    assert [reply["id"] for reply in client.replies(2)] == [1, 2]


def test_a_sync_behind_commands_that_do_not_hang_loses_nothing(client: Client) -> None:
    one_write = b"".join(
        request("qga-echo", text=f"{number}") + request("guest-sync", id=number)
        for number in range(50)
    )
    client.send(one_write)
    for number in range(50):
        assert client.result() == f"{number}"
        assert client.result() == number


def test_each_sync_gives_up_what_hangs_before_it(client: Client, tmp_path: Path) -> None:
    gates = [Gate(tmp_path / name) for name in ("first", "second", "third")]
    client.send(b"".join(gate.request + request("guest-sync", id=7) for gate in gates))
    assert [client.result() for _ in gates] == [7, 7, 7]
    for gate in gates:
        gate.open("nobody listens")
    assert client.call("guest-ping") == {}


def test_a_big_request_arrives_whole(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "file"
    data = random.Random(2).randbytes(8 * 1024 * 1024)
    handle = client.call("guest-file-open", path=str(file), mode="w")
    text = base64.b64encode(data).decode()
    assert client.call("guest-file-write", handle=handle, buf_b64=text)["count"] == len(data)
    client.call("guest-file-close", handle=handle)
    assert file.read_bytes() == data


def test_half_a_request_does_not_outlive_its_connection(agent: AgentProcess) -> None:
    for unfinished in (b'{"execute": "guest-pi', b'{"execute": [[[', b"\xff{", b"'", b"12"):
        with agent.connect() as first:
            first.send(unfinished)
            first.half_close()
            first.rest()
        with agent.connect() as second:
            assert second.call("guest-ping") == {}


def test_the_byte_ff_clears_what_is_pending(client: Client) -> None:
    client.send(b'{"execute": "guest-pi', b"\xff", request("guest-ping"))
    assert "stray '\"guest-pi\N{REPLACEMENT CHARACTER}'" in client.reply()["error"]["desc"]
    assert client.reply() == {"return": {}}


def test_faults_of_a_plugin_are_answered(agent: AgentProcess, client: Client) -> None:
    for name in ("qga-fault", "qga-nonsense", "qga-slow-nonsense"):
        with pytest.raises(Refused, match=f"{name} failed: TypeError: ") as refusal:
            client.call(name)
        assert refusal.value.error_class == "GenericError"
        agent.wait_for_log(f"error in {name}:")
    assert client.call("guest-ping") == {}


def test_a_command_that_takes_too_long_is_answered_with_an_error(
    tmp_path: Path, gate: Gate
) -> None:
    with with_gates(tmp_path, "command-timeout=1\n") as agent, agent.connect() as client:
        client.send(gate.request, request("guest-get-host-name"))
        gate.wait_until_reached()
        answer = client.reply()
        assert answer["id"] == f"gate {gate.path.name}"
        assert answer["error"]["desc"] == (
            "qga-wait did not finish within 1 s (command-timeout); it may still be running"
        )
        assert client.result() == {"host-name": socket.gethostname()}
        gate.open("too late")
        agent.wait_for_log("its reply is dropped")
        assert client.call("guest-ping") == {}
