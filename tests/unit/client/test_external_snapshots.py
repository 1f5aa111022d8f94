"""Whether the guest may write to the files of an external snapshot, which then have to stay."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qga.client.errors import SnapshotFailed
from qga.client.snapshots.machine import Disk, External, Operation, Target

OLD, NEW = "/images/web", 'json:{"filename": "/backup/a \\"quoted\\" name/vda.qcow2"}'


class Stand:
    """A machine with one disk; `file` is what QEMU says is behind it, or the error instead."""

    def __init__(self) -> None:
        self.file: str | SnapshotFailed = OLD

    def disks(self) -> list[Disk]:
        if isinstance(self.file, SnapshotFailed):
            raise self.file
        return [Disk("vda", file=self.file)]

    def copy(self, targets: Sequence[Target]) -> Operation:
        raise AssertionError

    def external(self, targets: Sequence[Target]) -> Operation:
        raise AssertionError

    def close(self) -> None:
        """Nothing is open."""


class Lost(External):
    """The connection ends while QEMU carries out the command."""

    def take(self) -> None:
        raise SnapshotFailed("the connection was closed")


@pytest.fixture
def machine() -> Stand:
    return Stand()


def lost(machine: Stand) -> External:
    return Lost(machine, [Target(Disk("vda", file=OLD), "/backup/vda.qcow2", "qcow2", -1)])


def test_before_the_start_nobody_uses_them(machine: Stand) -> None:
    assert not lost(machine).in_use


@pytest.mark.parametrize(
    ("file", "in_use"),
    [(OLD, False), (NEW, True), (SnapshotFailed("QEMU does not answer"), True)],
    ids=["not taken", "taken", "unknown"],
)
def test_after_a_lost_reply(machine: Stand, file: str | SnapshotFailed, in_use: bool) -> None:
    snapshot = lost(machine)
    with pytest.raises(SnapshotFailed):
        snapshot.start()
    machine.file = file
    assert snapshot.in_use is in_use
