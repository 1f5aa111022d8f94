"""Whether a guest counts as frozen as a whole."""

from __future__ import annotations

import pytest

from qga.client.snapshots.quiescing import unfrozen
from qga.client.storage import FilesystemInfo, FreezeParticipant, FreezeState

ROOT = FilesystemInfo("vda1", "/", "ext4")
FROZEN = FreezeState("frozen")


@pytest.mark.parametrize("kind", ["CDFS", "UDF", "udf", "minix", "ntfs", "ntfs3", "FAT32", "vfat"])
def test_one_that_cannot_be_frozen_need_not_be(kind: str) -> None:
    other = FilesystemInfo("other", "/other", kind)
    assert unfrozen(1, FROZEN, [ROOT, other], ["/other"]) == ""


@pytest.mark.parametrize("kind", ["UDF", "minix", "FAT32", "vfat"])
def test_one_that_nobody_accepts_has_to_be(kind: str) -> None:
    other = FilesystemInfo("other", "/other", kind)
    assert "froze only 1 of these 2" in unfrozen(1, FROZEN, [ROOT, other], [])


@pytest.mark.parametrize("kind", ["xfs", "btrfs", "NTFS", "ReFS"])
def test_one_that_can_be_frozen_is_counted_with_the_others(kind: str) -> None:
    """Otherwise it would count for one that has to be frozen."""
    other = FilesystemInfo("other", "/other", kind)
    assert "froze only 1 of these 2" in unfrozen(1, FROZEN, [ROOT, other], ["/other"])
    assert unfrozen(2, FROZEN, [ROOT, other], ["/other"]) == ""


@pytest.mark.parametrize("kind", ["squashfs", "iso9660", "CDFS"])
def test_one_that_is_never_written_to(kind: str) -> None:
    assert unfrozen(1, FROZEN, [ROOT, FilesystemInfo("other", "/other", kind)], []) == ""


def test_an_agent_that_does_not_list_filesystems() -> None:
    """Nobody knows what is mounted meanwhile, whether or not it reports what it has left out."""
    ours = FreezeState("frozen", filesystems=[FreezeParticipant("/", "ext4")], left_out=[])
    assert unfrozen(1, ours, [ROOT], []) == ""
    for state in (FROZEN, ours):
        assert "without guest-get-fsinfo" in unfrozen(1, state, None, [])
