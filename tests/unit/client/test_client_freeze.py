"""Who freezes thaws, whatever happens; and is told when the freeze did not hold."""

from __future__ import annotations

from typing import Any

import pytest

from qga.client import (
    AgentTimeout,
    CommandError,
    ConnectError,
    FreezeEnded,
    GuestAgent,
    NothingFrozen,
    ThawFailed,
)
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
    assert commands(peer) == ["freeze", "status", "thaw"]


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


def test_a_thaw_that_keeps_failing_is_reported(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "RETRIES_END", 0)
    guest = Filesystems(OSError("GenericError", "cannot"))
    with (
        GuestAgent(start(guest.handlers).address) as agent,
        pytest.raises(ThawFailed, match="thaw: the filesystems may still be FROZEN: cannot"),
        agent.freeze(),
    ):
        raise ValueError
    assert guest.frozen == 2


def test_an_error_behind_a_thaw_is_reported_at_once(start: Start) -> None:
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
    assert commands(peer) == ["freeze", "status", "thaw", "status"]


def test_a_freeze_that_ended_before_the_thaw_is_reported(start: Start) -> None:
    guest = Filesystems()
    peer = start(guest.handlers)
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(FreezeEnded, match="the freeze did not last: 2 of 2"),
        agent.freeze(),
    ):
        guest.frozen = 0
    with GuestAgent(peer.address) as agent, pytest.raises(ValueError), agent.freeze():
        guest.frozen = 0
        raise ValueError


@pytest.mark.parametrize("status", ["thawed", "error", ""])
def test_a_freeze_that_is_none_right_afterwards(start: Start, status: str) -> None:
    """However many filesystems the guest then says to have thawed."""
    guest = Filesystems()
    peer = start({**guest.handlers, "guest-fsfreeze-status": lambda _: status})
    complaint = f"the freeze did not last: the guest reports '{status}' right after it"
    with GuestAgent(peer.address) as agent, pytest.raises(FreezeEnded, match=complaint):
        agent.freeze()
    assert guest.frozen == 0
    assert commands(peer) == ["freeze", "status", "thaw"]


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


MOUNTED = [
    {"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": []},
    {"name": "vda1", "mountpoint": "/var/lib/machines", "type": "ext4", "disk": []},
    {"name": "vdb", "mountpoint": "/srv", "type": "xfs", "disk": []},
    {"name": "vda15", "mountpoint": "/boot/efi", "type": "vfat", "disk": []},
]


def with_mounts(guest: Filesystems, frozen: int) -> dict[str, Any]:
    def freeze_list(_: dict[str, Any]) -> int:
        guest.frozen = max(0, frozen)
        return frozen

    return {
        **guest.handlers,
        "guest-get-fsinfo": lambda _: MOUNTED,
        "guest-fsfreeze-freeze": freeze_list,
        "guest-fsfreeze-freeze-list": freeze_list,
    }


@pytest.mark.parametrize("count", [0, -1, -(2**40)])
@pytest.mark.parametrize("mountpoints", [None, [], ["/srv"]])
def test_a_freeze_of_nothing_is_an_error(
    start: Start, count: int, mountpoints: list[str] | None
) -> None:
    """Its hooks have run all the same, so it is followed by a thaw."""
    guest = Filesystems()
    peer = start(with_mounts(guest, count))
    with GuestAgent(peer.address) as agent, pytest.raises(NothingFrozen, match="nothing was fr"):
        agent.freeze(mountpoints)
    assert commands(peer)[-1] == "thaw"


@pytest.mark.parametrize("wrong", ["/nope", "srv", "/srv/data", "/proc"])
def test_what_is_not_a_mount_point_is_named_and_nothing_is_frozen(start: Start, wrong: str) -> None:
    peer = start(with_mounts(Filesystems(), 1))
    with GuestAgent(peer.address) as agent, pytest.raises(NothingFrozen) as caught:
        agent.freeze(["/srv", wrong])
    assert str(caught.value) == (
        f"{peer.address}: guest-fsfreeze-freeze-list: nothing was frozen: "
        f"no disk of the guest is mounted at {wrong}"
    )
    assert commands(peer) == ["fsinfo"]


def test_a_filesystem_that_takes_no_part_is_missed(start: Start) -> None:
    guest = Filesystems()
    peer = start(with_mounts(guest, 1))
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(NothingFrozen, match="only 1 of 2 filesystems could be frozen"),
    ):
        agent.freeze(["/srv", "/boot/efi"])
    assert guest.frozen == 0


def test_one_filesystem_at_two_mount_points_is_frozen_once(start: Start) -> None:
    guest = Filesystems()
    peer = start(with_mounts(guest, 1))
    with GuestAgent(peer.address) as agent, agent.freeze(["/", "/var/lib/machines/"]) as frozen:
        assert frozen.count == 1


def test_mount_points_are_taken_as_they_are_where_the_guest_does_not_list_them(
    start: Start,
) -> None:
    refused = OSError("CommandNotFound", "Command guest-get-fsinfo has been disabled")
    peer = start(
        {
            **with_mounts(Filesystems(), 1),
            "guest-get-fsinfo": lambda _: refused,
            "qga-get-freeze": lambda _: {"status": "thawed"},
        }
    )
    with GuestAgent(peer.address) as agent, agent.freeze(["/srv", "/nope"]) as frozen:
        assert frozen.count == 1


@pytest.mark.parametrize("still_frozen", [0, 1])
def test_a_freeze_that_ended_in_part(start: Start, still_frozen: int) -> None:
    guest = Filesystems()
    peer = start(guest.handlers)
    lost = 2 - still_frozen
    with (
        GuestAgent(peer.address) as agent,
        pytest.raises(FreezeEnded, match=f"{lost} of 2 filesystems had been thawed"),
        agent.freeze(),
    ):
        guest.frozen = still_frozen
