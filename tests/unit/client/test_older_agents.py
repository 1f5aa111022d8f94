"""Programs of a user, and in time, with an agent that does not know these arguments."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from qga.client import AgentError, GuestAgent, Limits, ProgramNotStarted, ProtocolError
from tests.unit.client_peer import Handler, Start

ACCOUNT = "alice\n1000\n100\n/home/alice\n/bin/zsh\n"


def first_release(known: tuple[str, ...] = ("path", "arg", "env", "directory")) -> Handler:
    def start(arguments: dict[str, Any]) -> Any:
        for name in arguments:
            if name not in known:
                return Exception("GenericError", f"Parameter '{name}' is unexpected")
        return {"pid": 8}

    return start


def handlers(looked_up: str, **end: Any) -> dict[str, Handler]:
    seen = {"exited": True, "exitcode": 0, "out-data": base64.b64encode(looked_up.encode())}
    seen["out-data"] = base64.b64encode(looked_up.encode()).decode()
    over = {"exited": True, "exitcode": 0, "out-total": 0, "err-total": 0}
    return {
        "qga-exec": first_release(),
        "qga-exec-read": lambda _: over,
        "qga-exec-write": lambda _: {"count": 0},
        "qga-exec-signal": lambda _: {},
        "guest-exec": lambda _: {"pid": 7},
        "guest-exec-status": lambda _: {**seen, **end},
    }


def test_setpriv_stands_in_for_a_user(start: Start) -> None:
    peer = start(handlers(ACCOUNT))
    with GuestAgent(peer.address) as agent:
        agent.exec(["make", "-j2"], user="alice", cwd="/src", timeout=60)
    started = [each["arguments"] for each in peer.requests if each["execute"] == "qga-exec"]
    assert [len(each) for each in started] == [5, 2]
    assert [started[1]["path"], *started[1]["arg"]] == [
        *("setpriv", "--reuid", "1000", "--regid", "100", "--init-groups", "--"),
        *("/bin/sh", "-c", 'cd -- "$1" && shift && exec "$@"', "sh", "/src"),
        *("env", "HOME=/home/alice", "SHELL=/bin/zsh", "USER=alice", "LOGNAME=alice"),
        *("make", "-j2"),
    ]


@pytest.mark.parametrize("has_streams", [True, False])
def test_limits_are_an_error(start: Start, has_streams: bool) -> None:
    lacks = Exception("CommandNotFound", "The command qga-exec has not been found")
    known = handlers(ACCOUNT)
    peer = start(known if has_streams else {**known, "qga-exec": lambda _: lacks})
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(AgentError, match=r"limits require qga 0[.]2 or later"),
    ):
        agent.exec(["make"], limits=Limits(memory=1 << 20))
    assert {each["execute"] for each in peer.requests} == {"qga-exec"}


def test_what_the_guest_finds_wrong(start: Start) -> None:
    words = base64.b64encode(b"the user 'x' is unknown in this guest\n").decode()
    peer = start(handlers("", exitcode=1, **{"err-data": words}))
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(ProgramNotStarted, match=r"the user 'x' is unknown in this guest$"),
    ):
        agent.exec(["make"], user="x")


@pytest.mark.parametrize("account", ["", "a\nb\nc\nd\ne\n", "a\n--x\n1\n/\n/bin/sh\n", "a\n1\n1\n"])
def test_an_account_that_is_none(start: Start, account: str) -> None:
    """Its numbers become arguments of setpriv."""
    peer = start(handlers(account))
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(ProtocolError, match="the account of 'alice' cannot be read"),
    ):
        agent.exec(["make"], user="alice")
