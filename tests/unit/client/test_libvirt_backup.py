"""A copy that libvirt makes counts only when it is on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.client.errors import SnapshotFailed
from qga.client.snapshots.folder import Folder
from qga.client.snapshots.libvirt import Backup
from qga.client.snapshots.machine import Disk, Target


class Ended:
    """A LibvirtMachine, libvirt and a domain whose backup has ended well."""

    VIR_DOMAIN_JOB_NONE, VIR_DOMAIN_JOB_COMPLETED, VIR_DOMAIN_JOB_STATS_COMPLETED = 0, 3, 1
    VIR_DOMAIN_JOB_OPERATION_BACKUP = 9

    def __init__(self) -> None:
        self.libvirt = self.domain = self

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def jobStats(self, completed: int = 0) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return {"type": 3 * completed}


class Running(Ended):
    """One whose backup runs, though libvirt fails to report on it once."""

    name = "web"
    aborted = False

    def is_settled(self) -> bool:
        return True

    def files(self) -> dict[str, str]:
        return {"vda": ""}

    def backupBegin(self, definition: str, *_: object) -> None:  # noqa: N802 - libvirt's name
        self.definition = definition

    def backupGetXMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        return self.definition

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        self.aborted = True

    def jobStats(self, completed: int = 0) -> dict[str, int]:  # noqa: N802 - libvirt's name
        if not self.aborted:
            raise SnapshotFailed("libvirt is busy")
        return {"type": self.VIR_DOMAIN_JOB_NONE}


class Lost(Running):
    """One whose libvirt has gone in the middle of the copy."""

    def backupGetXMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        raise SnapshotFailed("client socket is closed")


@pytest.fixture
def backup(tmp_path: Path) -> Iterator[Backup]:
    with Folder(f"{tmp_path}/copy") as folder:
        targets = folder.targets([Disk("vda"), Disk("vdb")], "qcow2")
        for target in targets:
            Path(target.path).touch()
        yield Backup(Ended(), targets)  # type: ignore[arg-type]


def test_each_file_is_synced(backup: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    assert backup.progress() is None
    assert [os.path.basename(path) for path in synced] == ["vda.qcow2", "vdb.qcow2"]


def test_bytes_that_are_lost(backup: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SnapshotFailed, match=r"cannot write .*vda\.qcow2: No space left"):
        backup.progress()


def test_files_of_another_user(backup: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt's QEMU may have created them: then everything is synced."""
    synced: list[bool] = []

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    assert backup.progress() is None
    assert synced


def test_a_fifo_in_the_place_of_a_file(backup: Backup, tmp_path: Path) -> None:
    os.unlink(tmp_path / "copy/vda.qcow2")
    os.mkfifo(tmp_path / "copy/vda.qcow2")
    with pytest.raises(SnapshotFailed, match="cannot write"):
        backup.progress()


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (Running, ""),
        (Lost, "; libvirt may go on with the copy, until `virsh domjobabort web` ends it"),
    ],
)
def test_what_libvirt_goes_on_with_is_reported(
    tmp_path: Path, kind: type[Running], advice: str
) -> None:
    targets = [Target(Disk("vda"), f"{tmp_path}/vda.qcow2", "qcow2", -1)]
    backup = Backup(kind(), targets)  # type: ignore[arg-type]
    with pytest.raises(SnapshotFailed) as caught, backup:
        backup.start()
        backup.progress()
    assert caught.value.reason == f"libvirt is busy{advice}"
