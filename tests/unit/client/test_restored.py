"""resync and set_identity: what a guest is sent, and what comes of its reply."""

from __future__ import annotations

import base64
import time
from typing import Any

from qga.client import GuestAgent, NewIdentity, RestoreStep
from tests.unit.client_peer import Start

SECOND = 10**9
STEP = {"name": "random", "result": "failed", "text": "why"}


class Guest:
    """A clock that is off, and set by the second resync only if the first comes too late."""

    def __init__(self, offset: float, delay: float = 0) -> None:
        self.offset, self.delay = offset, delay
        self.sent: list[dict[str, Any]] = []

    def handlers(self) -> dict[str, Any]:
        return {
            "guest-get-time": lambda _: time.time_ns() + round(self.offset * SECOND),
            "qga-resync": self.resync,
        }

    def resync(self, given: dict[str, Any]) -> dict[str, Any]:
        self.sent.append(given)
        self.offset = (given["time"] - time.time_ns()) / SECOND - self.delay
        self.delay = 0
        return {"steps": [STEP]}


def test_the_clock_before_and_after(start: Start) -> None:
    guest = Guest(-3600)
    with GuestAgent(start(guest.handlers()).address) as agent:
        told = agent.resync()
    assert told.ahead_before is not None
    assert told.ahead_after is not None
    assert abs(told.ahead_before + 3600) < 1
    assert abs(told.ahead_after) < 1
    assert told.failed == (RestoreStep("random", "failed", "why"),) == told.steps
    assert len(guest.sent) == 1


def test_a_time_that_came_late_is_sent_again(start: Start) -> None:
    guest = Guest(-3600, delay=5)
    with GuestAgent(start(guest.handlers()).address) as agent:
        told = agent.resync()
    assert told.ahead_after is not None
    assert abs(told.ahead_after) < 1
    assert [given.keys() for given in guest.sent] == [{"time", "entropy"}, {"time"}]


def test_an_agent_that_may_not_tell_the_time(start: Start) -> None:
    disabled = OSError("CommandNotFound", "no such command")
    peer = start({"guest-get-time": lambda _: disabled, "qga-resync": lambda _: {"steps": []}})
    with GuestAgent(peer.address) as agent:
        assert agent.resync() == ((), None, None)


def test_each_guest_gets_other_random_bytes(start: Start) -> None:
    new: dict[str, Any] = {"steps": [STEP], "remaining": ["nfs4 mount"]}
    peer = start({"qga-set-identity": lambda _: new, "guest-ping": lambda _: {}})
    with GuestAgent(peer.address) as agent:
        for _ in range(2):
            told = agent.set_identity("web-2", machine_id=True)
            assert told == NewIdentity((RestoreStep("random", "failed", "why"),), ("nfs4 mount",))
    sent = [each["arguments"] for each in peer.requests if each["execute"] == "qga-set-identity"]
    entropies = [base64.b64decode(each.pop("entropy")) for each in sent]
    assert list(map(len, entropies)) == [64, 64]
    assert entropies[0] != entropies[1]
    assert sent == [{"hostname": "web-2", "machine-id": True, "ssh-host-keys": False}] * 2
