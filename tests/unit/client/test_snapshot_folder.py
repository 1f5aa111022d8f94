"""The directory of a snapshot: nothing is left of one that fails, and its record is whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qga.client.errors import SnapshotFailed
from qga.client.snapshots.folder import RECORD, Folder, create, reopen
from qga.client.snapshots.machine import Disk
from qga.client.snapshots.record import Snapshot

TAKEN = Snapshot("unix:/socket", 0.0, True, True, [], [], 0.0, None, None)


@pytest.mark.parametrize("call", ["open", "listdir"])
def test_a_directory_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", 7)

    monkeypatch.setattr(os, call, fail)
    with (
        pytest.raises(SnapshotFailed, match="copy: Too many open files"),
        Folder(f"{tmp_path}/copy"),
    ):
        pass
    assert not (tmp_path / "copy").exists()


def test_a_user_who_leaves_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "listdir", leave)
    with pytest.raises(KeyboardInterrupt), Folder(f"{tmp_path}/copy"):
        pass
    assert not (tmp_path / "copy").exists()


def test_a_record_that_is_not_whole_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of an external snapshot stays, and one with a record is complete."""

    def leave(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", leave)
    with pytest.raises(KeyboardInterrupt), Folder(f"{tmp_path}/copy") as folder:
        folder.kept = True
        folder.write(TAKEN)
    assert RECORD not in os.listdir(tmp_path / "copy")


def test_a_file_that_somebody_replaces(tmp_path: Path) -> None:
    """A FIFO would make us wait until somebody writes to it."""
    with Folder(f"{tmp_path}/copy") as folder:
        (target,) = folder.targets([Disk("vda")], "raw")
        fd = create(target)
        os.unlink(target.path)
        os.mkfifo(target.path)
        again = reopen(target, fd)
    assert os.path.sameopenfile(fd, again)
    os.close(fd)
    os.close(again)


def test_a_disk_that_does_not_tell_its_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fstatvfs", fail)
    with (
        pytest.raises(SnapshotFailed, match=f"{tmp_path}/copy: Input/output error"),
        Folder(f"{tmp_path}/copy") as folder,
    ):
        folder.require_space([])
    assert not os.listdir(tmp_path)
