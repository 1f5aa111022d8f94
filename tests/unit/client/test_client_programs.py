"""Programs of a guest that lies about them: no input is lost, nothing waits for ever."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from qga.client import (
    AgentTimeout,
    GuestAgent,
    PlainProgram,
    ProtocolError,
    StreamedProgram,
    captured,
    programs,
)
from qga.client.captured import environment
from tests.unit.client_peer import Handler, Start

STARTED: dict[str, Handler] = {"qga-exec": lambda _: {"pid": 7}, "qga-exec-signal": lambda _: {}}


def read(**members: Any) -> Handler:
    whole = {"exited": False, "out-total": 0, "err-total": 0, **members}
    return lambda _: whole


@pytest.mark.parametrize("count", [2**40, -1, 6])
def test_a_count_of_bytes_that_were_not_sent(start: Start, count: int) -> None:
    peer = start({"qga-exec-write": lambda _: {"count": count, "eof": False}})
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(ProtocolError, match=f"qga-exec-write: took {count} of 5 bytes"),
    ):
        agent.stream_write(7, b"input")


def test_bytes_that_are_promised_and_never_come(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "LAST_BYTES", 0.05)
    data = base64.b64encode(b"some").decode()
    replies = [read(exited=True, **{"out-total": 2**40, "out-data": data})]
    replies += [read(exited=True, **{"out-total": 2**40})] * 10_000
    handlers = {**STARTED, "qga-exec-read": lambda _: replies.pop(0)({})}
    peer = start(handlers)
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(ProtocolError, match=r"only 4 of the 1099511627776 bytes .* have arrived"),
        StreamedProgram(agent, ["x"]) as program,
    ):
        while program.result is None:
            program.poll()


def test_last_bytes_may_take_their_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LAST_BYTES", 0.2)
    data = base64.b64encode(b"x").decode()
    replies = [read()] * 40 + [read(exited=True, **{"out-total": 1})] * 2
    replies += [read(exited=True, exitcode=3, **{"out-total": 1, "out-data": data})]
    peer = start({**STARTED, "qga-exec-read": lambda _: replies.pop(0)({})})
    with GuestAgent(peer.address) as agent, StreamedProgram(agent, ["x"]) as program:
        out = b""
        while program.result is None:
            out += program.poll().stdout
    assert (out, program.result.exitcode) == (b"x", 3)


def test_one_that_was_abandoned_is_not_waited_for(start: Start) -> None:
    peer = start({"guest-exec": lambda _: {"pid": 7}, "guest-exec-status": read()})
    with GuestAgent(peer.address) as agent, PlainProgram(agent, ["x"]) as program:
        program.abandon()
    assert [request["execute"] for request in peer.requests] == ["guest-exec"]


def wrote(data: bytes) -> Handler:
    return read(exited=True, exitcode=0, **{"out-data": base64.b64encode(data).decode()})


def test_an_environment_is_no_larger_than_one_can_be(start: Start) -> None:
    many = b"".join(b"%d=\0" % number for number in range(200_000))
    peer = start({"guest-exec": lambda _: {"pid": 7}, "guest-exec-status": wrote(many)})
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(ProtocolError, match=r"\d+ bytes of output, more than the program can write"),
    ):
        environment(agent)


def test_impossible_pids_of_what_a_program_has_started(start: Start) -> None:
    pids = b"8 -1 +9 1_0 " + b"9" * 5000 + b" 4194303"
    peer = start({"guest-exec": lambda _: {"pid": 7}, "guest-exec-status": wrote(pids)})
    with GuestAgent(peer.address) as agent:
        program = PlainProgram(agent, ["x"])
        program.signal("TERM")
        program.signal("KILL")
    started = [each["arguments"] for each in peer.requests if each["execute"] == "guest-exec"]
    assert set(started[-1]["arg"][4:]) == {"7", "8", "4194303"}


def test_more_pids_than_a_guest_can_have(start: Start) -> None:
    peer = start({"guest-exec": lambda _: {"pid": 7}, "guest-exec-status": wrote(b"1 " * 600_000)})
    with GuestAgent(peer.address) as agent:
        program = PlainProgram(agent, ["x"])
        with pytest.raises(ProtocolError, match="1200000 bytes of output, more than the program"):
            program.signal("TERM")


def test_the_environment_is_not_waited_for_for_ever(start: Start) -> None:
    peer = start({"guest-exec": lambda _: {"pid": 7}, "guest-exec-status": read()})
    with GuestAgent(peer.address) as agent, pytest.raises(AgentTimeout, match="process 7 is still"):
        environment(agent, timeout=0.05)


def test_output_that_is_handed_over_byte_by_byte(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by libvirt, from files in the guest; KEEP has written the directory with these."""
    monkeypatch.setattr(captured, "FETCH_PATIENCE", 0.1)
    monkeypatch.setattr(GuestAgent, "max_output", lambda _: 3 << 20)
    byte = {"count": 1, "buf-b64": base64.b64encode(b"x").decode(), "eof": False}
    read_byte = iter([byte] * 20_000)
    peer = start(
        {
            "guest-exec": lambda _: {"pid": 7},
            "guest-exec-status": wrote(b"/tmp/x\n"),
            "guest-file-open": lambda _: 1000,
            "guest-file-read": lambda _: next(read_byte),
            "guest-file-close": lambda _: {},
        }
    )
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(AgentTimeout, match=r"/tmp/x/out is incomplete: \d+ bytes so far"),
    ):
        PlainProgram(agent, ["x"]).poll()
    assert peer.requests[-2]["arguments"]["arg"] == ["-rf", "--", "/tmp/x"]
