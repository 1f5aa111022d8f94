"""qgactl exec in a guest that lies about its programs: with --timeout it ends in time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.qgactl_process import qgactl
from tests.unit.client_peer import LATE, Handler, Peer

MISSING = OSError("CommandNotFound", "The command qga-exec has not been found")

# TERM, a grace, KILL, a grace; of a guest without qga-exec each is a program that is waited for.
LONGEST = 25.0


def runs_on(_arguments: dict[str, Any]) -> dict[str, Any]:
    return {"exited": False, "out-total": 0, "err-total": 0}


def promises(_arguments: dict[str, Any]) -> dict[str, Any]:
    return {"exited": True, "exitcode": 0, "out-total": 2**40, "err-total": 0}


STREAMED: dict[str, Handler] = {
    "qga-exec": lambda _: {"pid": 7},
    "qga-exec-write": lambda _: {"count": 0},
    "qga-exec-signal": lambda _: {},
    "qga-get-ports": lambda _: [],
}
PLAIN: dict[str, Handler] = {
    "qga-exec": lambda _: MISSING,
    "qga-get-ports": lambda _: MISSING,
    "guest-exec": lambda _: {"pid": 7},
    "guest-exec-status": runs_on,
}
GUESTS = {
    "runs on": {**STREAMED, "qga-exec-read": runs_on},
    "promises": {**STREAMED, "qga-exec-read": promises},
    "runs on, plain": PLAIN,
}


@pytest.mark.parametrize("guest", GUESTS)
def test_a_timeout_holds_whatever_the_guest_says(tmp_path: Path, guest: str) -> None:
    peer = Peer(tmp_path / "socket", GUESTS[guest])
    start = time.monotonic()
    status, out, err = qgactl("exec", "--timeout", "1", "--", "x", address=peer.address)
    seconds = time.monotonic() - start
    peer.close()
    assert (status, out) == (124, "")
    assert "process 7 may still run: the guest reports that it still runs" in err
    assert 1 < seconds < LONGEST
    asked = [request["execute"] for request in peer.requests]
    signals = [r["arguments"]["signal"] for r in peer.requests if r["execute"] == "qga-exec-signal"]
    assert signals == ["TERM", "KILL"] or asked.count("guest-exec") == 3


def test_a_timeout_holds_for_the_environment_too(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "socket", {**STREAMED, **PLAIN})
    options = ("--timeout", "1", "--env", "A=b")
    assert qgactl("exec", *options, "--", "x", address=peer.address) == (124, "", "")
    peer.close()


@pytest.mark.parametrize(("code", "status"), [(255, 255), (256, 255), (2**40, 255), (-1, 255)])
def test_an_exit_code_that_does_not_exist_here_is_not_success(
    tmp_path: Path, code: int, status: int
) -> None:
    ended = {"exited": True, "exitcode": code, "out-total": 0, "err-total": 0}
    peer = Peer(tmp_path / "socket", {**STREAMED, "qga-exec-read": lambda _: ended})
    assert qgactl("exec", "--", "x", address=peer.address)[0] == status
    peer.close()


def test_input_is_not_lost_by_an_invalid_count(tmp_path: Path) -> None:
    lies = {**STREAMED, "qga-exec-read": runs_on, "qga-exec-write": lambda _: {"count": 2**40}}
    peer = Peer(tmp_path / "socket", lies)
    status, _, err = qgactl("exec", "--", "cat", address=peer.address, stdin="text")
    peer.close()
    assert status == 125
    assert "qga-exec-write: took 1099511627776 of 4 bytes" in err


def test_a_guest_that_was_paused_for_a_while(tmp_path: Path) -> None:
    ended = {"exited": True, "exitcode": 5, "out-total": 0, "err-total": 0}
    answers = iter([LATE, LATE, ended])
    peer = Peer(tmp_path / "socket", {**STREAMED, "qga-exec-read": lambda _: next(answers)})
    status, _, err = qgactl("--timeout", "0.5", "exec", "--", "x", address=peer.address)
    peer.close()
    assert (status, err) == (
        5,
        "qgactl: the guest does not answer; waiting (^C to quit)\n",
    )
