"""GuestAgent against a scripted agent: whose reply it is, and what its methods make of it."""

from __future__ import annotations

import base64
import json
import signal
import threading
from typing import Any

import pytest

from qga.client import (
    AgentInfo,
    AgentTimeout,
    CommandError,
    CommandInfo,
    CommandNotFound,
    ConnectError,
    ExecResult,
    GuestAgent,
    ProtocolError,
    Timezone,
)
from qga.client.transports import MAX_UNDER_WAY
from tests.unit.client_peer import HANG_UP, LATE, Handler, Raw, Start


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def echo(arguments: dict[str, Any]) -> Any:
    return arguments


def test_arguments_by_keyword_by_name_or_both(start: Start) -> None:
    peer = start({"x": echo})
    with GuestAgent(peer.address) as agent:
        assert agent.call("x", buf_b64="", handle=1) == {"buf-b64": "", "handle": 1}
        assert agent.call("x", {"a_b": 1}) == {"a_b": 1}
        assert agent.call("x", {"timeout": 1}, command="c") == {"timeout": 1, "command": "c"}
        assert agent.call("x") == {}


def test_entering_synchronizes_once(start: Start) -> None:
    peer = start({"x": echo})
    with GuestAgent(peer.address) as agent:
        assert peer.syncs == 1
        agent.call("x")
        agent.call("x")
    assert peer.syncs == 1


def test_error_replies(start: Start) -> None:
    peer = start(
        {
            "x": lambda _: OSError("GenericError", "it broke"),
            "y": lambda _: OSError("CommandNotFound", "The command y has not been found"),
        }
    )
    with GuestAgent(peer.address) as agent:
        with pytest.raises(CommandError) as broken:
            agent.call("x")
        with pytest.raises(CommandNotFound) as missing:
            agent.call("y")
    assert str(broken.value) == f"{peer.address}: x: it broke"
    assert str(missing.value) == f"{peer.address}: y: The command y has not been found"
    told = broken.value
    assert (told.address, told.command, told.desc) == (peer.address, "x", "it broke")
    assert peer.syncs == 1


def test_a_late_reply_is_never_the_answer_to_the_next_command(start: Start) -> None:
    peer = start({"slow": lambda _: LATE, "x": echo})
    with GuestAgent(peer.address) as agent:
        with pytest.raises(AgentTimeout) as caught:
            agent.call("slow", timeout=0.01)
        assert agent.call("x", n=1) == {"n": 1}
    error = caught.value
    assert (error.address, error.command, error.seconds) == (peer.address, "slow", 0.01)
    assert str(error) == f"{peer.address}: slow: timed out after 0.01 s: no answer"
    assert peer.syncs == 2


def test_an_interrupted_call_leaves_no_reply_for_the_next(start: Start) -> None:
    def interrupt(_: dict[str, Any]) -> object:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        return LATE

    peer = start({"slow": interrupt, "x": echo})
    with GuestAgent(peer.address) as agent:
        with pytest.raises(KeyboardInterrupt):
            agent.call("slow", timeout=30)
        assert agent.call("x", n=1) == {"n": 1}


def test_threads_get_their_own_replies(start: Start) -> None:
    peer = start({"x": echo})
    wrong: list[Any] = []

    def work(agent: GuestAgent, name: int) -> None:
        for number in range(50):
            arguments = {"thread": name, "number": number}
            if (reply := agent.call("x", arguments)) != arguments:
                wrong.append(reply)

    with GuestAgent(peer.address) as agent:
        threads = [threading.Thread(target=work, args=(agent, name)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(peer.requests) == 300


def test_a_lost_connection_is_reported_and_the_next_call_connects_again(start: Start) -> None:
    peer = start({"crash": lambda _: HANG_UP, "x": echo})
    with GuestAgent(peer.address) as agent:
        with pytest.raises(ConnectError, match="crash: the connection was closed"):
            agent.call("crash")
        assert agent.call("x", n=1) == {"n": 1}
    assert [request["execute"] for request in peer.requests] == ["crash", "x"]


def test_a_reply_that_is_too_large(start: Start) -> None:
    peer = start({"large": lambda _: "x" * 100, "x": echo})
    with GuestAgent(peer.address, max_reply=100) as agent:
        with pytest.raises(ProtocolError, match=r": large: the reply is larger than 100 bytes$"):
            agent.call("large")
        assert agent.call("x") == {}


def test_a_large_reply_arrives_whole(start: Start) -> None:
    peer = start({"large": lambda _: "x" * (4 << 20)})
    with GuestAgent(peer.address) as agent:
        assert agent.call("large", max_reply=8 << 20) == "x" * (4 << 20)
        with pytest.raises(ProtocolError, match="larger than 4194304 bytes"):
            agent.call("large")
        assert agent.call("large", max_reply=8 << 20) == "x" * (4 << 20)


def test_a_reply_is_bounded_by_what_its_command_is_for(start: Start) -> None:
    data = b64(b"x" * (4 << 20))
    status = {"exited": True, "exitcode": 0, "out-data": data, "err-data": data}
    chunk = {"count": 4 << 20, "buf-b64": data, "eof": False}
    peer = start({"guest-exec-status": lambda _: status, "guest-file-read": lambda _: chunk})
    with GuestAgent(peer.address) as agent:
        result = agent.exec_status(1)
        assert result and len(result.stdout) == 4 << 20
        assert len(agent.file_read(1, 4 << 20).data) == 4 << 20
        with pytest.raises(ProtocolError, match="guest-file-read: the reply is larger than"):
            agent.file_read(1, 4096)


@pytest.mark.parametrize("ids", ["echoed", "ignored", "refused"])
def test_agents_that_echo_ids_and_that_do_not(start: Start, ids: str) -> None:
    peer = start({"slow": lambda _: LATE, "x": echo, "shutdown": echo, "guest-ping": echo})
    peer.ids = ids
    with GuestAgent(peer.address) as agent:
        assert agent.call("x", n=1) == {"n": 1}
        with pytest.raises(AgentTimeout):
            agent.call("slow", timeout=0.01)
        assert agent.call("x", n=2) == {"n": 2}
        agent.order("shutdown")
    tagged = ["id" in request for request in peer.requests]
    assert tagged == [ids == "echoed"] * len(tagged)


def test_an_order_is_accepted_also_where_a_ping_is_refused(start: Start) -> None:
    """The reply to the ping behind it shows that the agent went on; it may be any."""
    refused = OSError(
        "CommandNotFound", "The command guest-ping has been disabled for this instance"
    )
    peer = start({"guest-shutdown": lambda _: Raw(), "guest-ping": lambda _: refused})
    with GuestAgent(peer.address) as agent:
        agent.order("guest-shutdown")
        peer.handlers["guest-shutdown"] = lambda _: OSError("GenericError", "not now")
        with pytest.raises(CommandError, match="guest-shutdown: not now"):
            agent.order("guest-shutdown")


def test_a_reply_of_an_earlier_state_of_the_guest_is_dropped(start: Start) -> None:
    """As after QEMU's loadvm: the guest sends what it was about to send when it was saved."""
    seen: list[dict[str, Any]] = []

    def answer(arguments: dict[str, Any]) -> Any:
        request = peer.requests[-1]
        seen.append(request)
        replies = [{"return": n, "id": each["id"]} for n, each in enumerate(seen)]
        return Raw(b"".join(json.dumps(reply).encode() + b"\n" for reply in replies))

    peer = start({"x": answer})
    with GuestAgent(peer.address) as agent:
        assert [agent.call("x") for _ in range(5)] == [0, 1, 2, 3, 4]
    ids = [request["id"] for request in peer.requests]
    assert len(set(ids)) == 5


def test_no_reply_but_that_to_another_request(start: Start) -> None:
    stale = Raw(b'{"return": {}, "id": 1}\n')
    peer = start({"x": lambda _: stale, "y": echo})
    with GuestAgent(peer.address) as agent:
        with pytest.raises(AgentTimeout, match=r"no answer; a reply without .*\"id\": 1}'"):
            agent.call("x", timeout=0.1)
        assert agent.call("y") == {}


def test_info(start: Start) -> None:
    commands = [
        {"name": "guest-ping", "enabled": True, "success-response": True},
        {"name": "guest-shutdown", "enabled": False, "success-response": False},
        {"name": "guest-old", "enabled": True},
    ]
    peer = start({"guest-info": lambda _: {"version": "9.9.9", "supported_commands": commands}})
    with GuestAgent(peer.address) as agent:
        assert agent.info() == AgentInfo(
            "9.9.9",
            (
                CommandInfo("guest-ping", True, True),
                CommandInfo("guest-shutdown", False, False),
                CommandInfo("guest-old", True, True),
            ),
        )


def test_small_facts(start: Start) -> None:
    peer = start(
        {
            "guest-get-osinfo": lambda _: {"id": "debian", "pretty-name": "Debian", "new": 1},
            "guest-get-host-name": lambda _: {"host-name": "vm"},
            "guest-get-timezone": lambda _: {"offset": 3600},
            "guest-get-time": lambda _: 1_700_000_000_123_456_000,
            "guest-ping": lambda _: {},
        }
    )
    with GuestAgent(peer.address) as agent:
        osinfo = agent.osinfo()
        assert (osinfo.id, osinfo.pretty_name, osinfo.variant) == ("debian", "Debian", None)
        assert agent.hostname() == "vm"
        assert agent.timezone() == Timezone(3600, None)
        assert agent.time() == 1_700_000_000_123_456_000
        assert agent.ping() > 0


@pytest.mark.parametrize(
    ("command", "method", "reply", "complaint"),
    [
        ("guest-get-time", "time", "now", "the reply is not an integer"),
        ("guest-get-time", "time", True, "the reply is not an integer"),
        ("guest-get-host-name", "hostname", {}, "the reply lacks 'host-name'"),
        ("guest-get-host-name", "hostname", [], "the reply is not an object"),
        ("guest-get-osinfo", "osinfo", {"id": 5}, "'id' of the reply is not a string"),
        ("guest-info", "info", {"version": "1"}, "the reply lacks 'supported_commands'"),
    ],
)
def test_replies_of_the_wrong_shape(
    start: Start, command: str, method: str, reply: object, complaint: str
) -> None:
    peer = start({command: lambda _: reply})
    with GuestAgent(peer.address) as agent, pytest.raises(ProtocolError) as caught:
        getattr(agent, method)()
    assert str(caught.value) == f"{peer.address}: {command}: {complaint}"


def test_exec_polls_until_the_program_ended(start: Start) -> None:
    statuses = iter(
        [
            {"exited": False},
            {"exited": False},
            {"exited": True, "exitcode": 3, "out-data": b64(b"\0out"), "out-truncated": True},
        ]
    )
    peer = start(
        {"guest-exec": lambda _: {"pid": 42}, "guest-exec-status": lambda _: next(statuses)}
    )
    with GuestAgent(peer.address) as agent:
        result = agent.exec(["tool", "-x", "ä"], input=b"in", env={"A": "b=c"})
    assert result == ExecResult(3, None, b"\0out", b"", True, False)
    assert result.status == 3
    assert peer.requests[0]["arguments"] == {
        "path": "tool",
        "arg": ["-x", "ä"],
        "capture-output": True,
        "input-data": b64(b"in"),
        "env": ["A=b=c"],
    }
    assert [request["arguments"] for request in peer.requests[1:]] == [{"pid": 42}] * 3


def test_exec_sends_only_what_was_given(start: Start) -> None:
    killed = {"exited": True, "signal": 9}
    peer = start({"guest-exec": lambda _: {"pid": 1}, "guest-exec-status": lambda _: killed})
    with GuestAgent(peer.address) as agent:
        result = agent.exec(["true"], input=b"", capture=False)
    assert (result.exitcode, result.signal, result.status) == (None, 9, 137)
    assert peer.requests[0]["arguments"] == {
        "path": "true",
        "arg": [],
        "capture-output": False,
        "input-data": "",
    }


def test_waiting_for_a_program_says_what_still_runs(start: Start) -> None:
    peer = start({"guest-exec-status": lambda _: {"exited": False}})
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(AgentTimeout, match=r"guest-exec: timed out .* process 42 is still running"),
    ):
        agent.exec_wait(42, timeout=0.02)


@pytest.mark.parametrize("argv", [[], "ls -l"])
def test_exec_wants_a_list(start: Start, argv: list[str]) -> None:
    peer = start({})
    with GuestAgent(peer.address) as agent, pytest.raises(ValueError, match="argv must be a list"):
        agent.exec(argv)


class File:
    """A file behind the handlers of guest-file-*, taking at most `most` bytes a write."""

    def __init__(self, content: bytes = b"", most: int = 1 << 20) -> None:
        self.content, self.position, self.most = content, 0, most
        self.log: list[str] = []

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "qga-get-version": lambda _: {"version": "0.2.0"},
            "guest-file-open": self.open,
            "guest-file-read": self.read,
            "guest-file-write": self.write,
            "guest-file-flush": lambda _: self.note("flush"),
            "guest-file-close": lambda _: self.note("close"),
        }

    def note(self, event: str) -> dict[str, Any]:
        self.log.append(event)
        return {}

    def open(self, arguments: dict[str, Any]) -> int:
        self.log.append(f"open {arguments['path']} {arguments['mode']}")
        return 1000

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        data = self.content[self.position :][: arguments["count"]]
        self.position += len(data)
        self.log.append(f"read {len(data)}")
        short = len(data) < arguments["count"]
        return {"count": len(data), "buf-b64": b64(data), "eof": short}

    def write(self, arguments: dict[str, Any]) -> dict[str, Any]:
        data = base64.b64decode(arguments["buf-b64"])[: self.most]
        self.content += data
        self.log.append(f"write {len(data)}")
        return {"count": len(data), "eof": False}


def test_a_file_is_read_in_chunks_to_its_end(start: Start) -> None:
    file = File(b"0123456789")
    with GuestAgent(start(file.handlers).address) as agent:
        assert agent.read_file("/f", chunk=5) == b"0123456789"
    # The next pieces are asked for before it is known that there are none.
    reads = ["read 5", "read 5", *["read 0"] * MAX_UNDER_WAY]
    assert file.log == ["open /f r", *reads, "close"]


def test_a_file_is_written_in_chunks_and_what_was_not_taken_again(start: Start) -> None:
    file = File(most=3)
    with GuestAgent(start(file.handlers).address) as agent:
        agent.write_file("/f", b"0123456789", chunk=5)
    assert file.content == b"0123456789"
    assert file.log == ["open /f w", *["write 3", "write 2"] * 2, "flush", "close"]


def test_a_write_that_makes_no_progress_is_an_error(start: Start) -> None:
    file = File(most=0)
    with (
        GuestAgent(start(file.handlers).address) as agent,
        pytest.raises(ProtocolError, match="took 0 of 4 bytes"),
    ):
        agent.write_file("/f", b"data")
    assert file.log == ["open /f w", "write 0", "close"]


def test_a_failing_read_closes_the_file_and_reports_its_own_error(start: Start) -> None:
    file = File()
    failing = {
        **file.handlers,
        "guest-file-read": lambda _: OSError("GenericError", "read failed"),
        "guest-file-close": lambda _: OSError("GenericError", "close failed"),
    }
    peer = start(failing)
    with GuestAgent(peer.address) as agent, pytest.raises(CommandError, match="read failed"):
        agent.read_file("/f")
    assert peer.requests[-1]["execute"] == "guest-file-close"


def test_damaged_base64_is_a_protocol_error(start: Start) -> None:
    peer = start({**File().handlers, "guest-file-read": lambda _: {"buf-b64": "a", "eof": True}})
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(ProtocolError, match="file-read: 'buf-b64' of the reply is not"),
    ):
        agent.read_file("/f")


def test_garbage_before_a_reply_does_not_shift_the_next_one(start: Start) -> None:
    garbage = Raw(b'\x1b[31mlogin: \n{"return": "of x"}\n')
    peer = start({"x": lambda _: garbage, "y": echo})
    with GuestAgent(peer.address) as agent:
        with pytest.raises(ProtocolError, match=r": x: no JSON in the reply "):
            agent.call("x")
        assert agent.call("y") == {}
