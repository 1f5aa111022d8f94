"""Who freezes thaws, whatever happens; and is told when the freeze did not hold."""

from __future__ import annotations

from typing import Any

import pytest

from qga.client import AgentTimeout, CommandError, ConnectError, FreezeEnded, GuestAgent, ThawFailed
from qga.client.commands import freeze
from tests.unit.client_peer import HANG_UP, LATE, Filesystems, Peer, Start


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze, "RETRY_DELAY", 0.001)


def commands(peer: Peer) -> list[str]:
    return [request["execute"].rpartition("-")[2] for request in peer.requests]


def test_frozen_inside_thawed_behind(start: Start) -> None:
    guest = Filesystems()
    with GuestAgent(start(guest.handlers).address) as agent:
        with agent.freeze() as frozen:
            assert (guest.frozen, frozen.count, frozen.thawed) == (2, 2, None)
        assert (guest.frozen, frozen.count, frozen.thawed) == (0, 2, 2)


def test_a_thaw_before_the_end_is_the_only_one(start: Start) -> None:
    peer = start(Filesystems().handlers)
    with GuestAgent(peer.address) as agent, agent.freeze() as frozen:
        assert frozen.thaw() == 2
        assert frozen.thaw() == 2
    assert commands(peer) == ["freeze", "thaw"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_thawed_whatever_is_raised(start: Start, error: type[BaseException]) -> None:
    guest = Filesystems()
    with GuestAgent(start(guest.handlers).address) as agent, pytest.raises(error), agent.freeze():
        raise error
    assert guest.frozen == 0


@pytest.mark.parametrize("failure", [HANG_UP, OSError("GenericError", "cannot now"), "no number"])
def test_a_thaw_that_fails_is_tried_again(start: Start, failure: Any) -> None:
    guest = Filesystems(failure, failure)
    peer = start(guest.handlers)
    with GuestAgent(peer.address) as agent, agent.freeze() as frozen:
        pass
    assert (guest.frozen, frozen.thawed) == (0, 2)
    assert commands(peer).count("thaw") == 3


def test_a_thaw_that_keeps_failing_is_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze, "RETRIES_END", 0)
    guest = Filesystems(OSError("GenericError", "cannot"))
    with (
        GuestAgent(start(guest.handlers).address) as agent,
        pytest.raises(ThawFailed, match="thaw: the filesystems may still be FROZEN: cannot"),
        agent.freeze(),
    ):
        raise ValueError
    assert guest.frozen == 2


def test_an_error_behind_a_thaw_is_told_at_once(start: Start) -> None:
    guest = Filesystems(OSError("GenericError", "hook has failed"))

    def thaw(arguments: dict[str, Any]) -> Any:
        guest.frozen = 0
        return guest.thaw(arguments)

    peer = start({**guest.handlers, "guest-fsfreeze-thaw": thaw})
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(CommandError, match="hook has failed"),
        agent.freeze(),
    ):
        pass
    assert commands(peer) == ["freeze", "thaw", "status"]


def test_a_freeze_that_ended_before_the_thaw_is_told(start: Start) -> None:
    guest = Filesystems()
    peer = start(guest.handlers)
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(FreezeEnded, match="may not be consistent"),
        agent.freeze(),
    ):
        guest.frozen = 0
    with GuestAgent(peer.address) as agent, pytest.raises(ValueError), agent.freeze():
        guest.frozen = 0
        raise ValueError


def test_a_freeze_that_fails_thaws_nothing_of_others(start: Start) -> None:
    guest = Filesystems()
    busy = OSError("GenericError", "a freeze is going on already")
    peer = start({**guest.handlers, "guest-fsfreeze-freeze": lambda _: busy})
    with GuestAgent(peer.address) as agent, pytest.raises(CommandError):
        agent.freeze()
    assert commands(peer) == ["freeze"]


def test_a_freeze_that_is_not_answered_is_thawed(start: Start) -> None:
    guest = Filesystems()
    peer = start({**guest.handlers, "guest-fsfreeze-freeze": lambda _: LATE})
    with GuestAgent(peer.address, 0.05) as agent, pytest.raises(AgentTimeout):
        agent.freeze(timeout=0.05)
    assert commands(peer) == ["freeze", "thaw"]


def test_without_an_agent_there_is_nothing_to_thaw(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "RETRY_DELAY", 3600)
    peer = start({})
    agent = GuestAgent(peer.address.replace("socket0", "socket1"))
    with pytest.raises(ConnectError):
        agent.freeze()
