"""A snapshot by libvirt is ours and ends with us, although others use the domain and calls hang."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qga.client.errors import AgentTimeout, SnapshotFailed
from qga.client.snapshots import libvirt
from qga.client.snapshots.folder import Folder
from qga.client.snapshots.libvirt import Backup, External, LibvirtMachine
from qga.client.snapshots.machine import Disk, Target

OLD = "/images/web"

XML = "<domain><devices>{}</devices></domain>"
DISK = "<disk><source file='{}'/><target dev='{}'/></disk>"

NONE, UNBOUNDED, COMPLETED = 0, 2, 3
MIGRATION, BACKUP = 4, 9


class Refused(Exception):
    def get_error_message(self) -> str:
        return str(self)

    def get_error_code(self) -> int:
        return 0


class Domain:
    """A domain, and libvirt itself."""

    libvirtError = Refused  # noqa: N815 - libvirt's name
    VIR_DOMAIN_JOB_NONE, VIR_DOMAIN_JOB_COMPLETED = NONE, COMPLETED
    VIR_DOMAIN_JOB_STATS_COMPLETED = 1
    VIR_DOMAIN_JOB_OPERATION_BACKUP = BACKUP
    VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY = VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC = 0
    VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA = 0

    def __init__(self) -> None:
        self.files = {"vda": OLD, "vdb": "/images/data"}
        self.job: dict[str, int] = {"type": NONE}
        self.ended: dict[str, int] = {"type": NONE}
        self.backup = ""
        self.aborted = 0
        self.may_return = threading.Event()
        self.may_return.set()

    def close(self) -> None:
        self.may_return.set()

    def XMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        return XML.format("".join(DISK.format(file, name) for name, file in self.files.items()))

    def blockInfo(self, name: str) -> tuple[int, int, int]:  # noqa: N802 - libvirt's name
        return 1024, 512, 512

    def backupBegin(self, definition: str, *_: object) -> None:  # noqa: N802 - libvirt's name
        self.may_return.wait(60)
        self.backup, self.job = definition, {"type": UNBOUNDED, "operation": BACKUP}

    def backupGetXMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        if self.job["type"] == NONE:
            raise Refused("no domain backup job present")
        return self.backup

    def jobStats(self, completed: int = 0) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return self.ended if completed else self.job

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        self.aborted += 1
        self.job = {"type": NONE}

    def snapshotCreateXML(self, definition: str, _: int) -> None:  # noqa: N802 - libvirt's name
        self.may_return.wait(60)
        self.files["vda"] = "/backup/vda.qcow2"


class Machine(LibvirtMachine):
    def __init__(self, domain: Domain) -> None:
        self._last = None
        self.libvirt: Any = domain
        self.domain: Any = domain


@pytest.fixture
def domain() -> Iterator[Domain]:
    with closing(Domain()) as domain:
        yield domain


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[list[Target]]:
    with Folder(f"{tmp_path}/copy") as folder:
        yield folder.targets([Disk("vda", file=OLD)], "qcow2")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda seconds: monkeypatch.setattr(libvirt, "PATIENCE", seconds)


def test_a_copy_that_starts_after_it_was_given_up_is_ended(
    domain: Domain, targets: list[Target], impatient: Callable[[float], None]
) -> None:
    domain.may_return.clear()
    impatient(0.01)
    with pytest.raises(AgentTimeout), Backup(Machine(domain), targets) as backup:
        try:
            backup.start()
        finally:
            impatient(60)
            threading.Timer(0.05, domain.may_return.set).start()
    assert domain.backup
    assert domain.aborted == 1
    assert domain.job["type"] == NONE


@pytest.mark.parametrize("returns", [True, False], ids=["it returns", "it hangs"])
def test_a_snapshot_that_was_given_up_may_still_be_taken(
    domain: Domain, targets: list[Target], impatient: Callable[[float], None], returns: bool
) -> None:
    """Without its file the guest would lose what it writes."""
    domain.may_return.clear()
    snapshot = External(Machine(domain), targets)
    impatient(0.01)
    with pytest.raises(AgentTimeout):
        snapshot.start()
    if returns:
        impatient(60)
        threading.Timer(0.05, domain.may_return.set).start()
    assert snapshot.in_use


def test_a_snapshot_that_libvirt_refuses_uses_nothing(
    domain: Domain, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Refused("no space")

    monkeypatch.setattr(domain, "snapshotCreateXML", refuse)
    snapshot = External(Machine(domain), targets)
    with pytest.raises(SnapshotFailed, match="no space"):
        snapshot.start()
    assert not snapshot.in_use


@pytest.mark.parametrize("kind", [Backup, External])
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"vda": "/images/web.1"}, "was /images/web, and is /images/web.1 now"),
        ({"vdb": "/images/data"}, "was /images/web, and is gone"),
    ],
    ids=["another program has taken a snapshot", "unplugged"],
)
def test_a_disk_that_is_not_the_same_any_more(
    domain: Domain,
    targets: list[Target],
    kind: type[Backup | External],
    files: dict[str, str],
    reason: str,
) -> None:
    domain.files = files
    with kind(Machine(domain), targets) as operation:
        with pytest.raises(SnapshotFailed, match=f"disk vda {reason}: try again"):
            operation.start()
        assert not operation.in_use
    assert not domain.aborted


def test_what_ends_well_and_is_no_backup(domain: Domain, targets: list[Target]) -> None:
    """Another program has ended ours, and has migrated or saved the domain since."""
    with Backup(Machine(domain), targets) as backup:
        backup.start()
        domain.job, domain.ended = {"type": NONE}, {"type": COMPLETED, "operation": MIGRATION}
        with pytest.raises(SnapshotFailed, match="another program has ended the copy"):
            backup.progress()


def test_a_backup_of_another_program(domain: Domain, targets: list[Target]) -> None:
    """It is not taken for ours, and not ended."""
    with Backup(Machine(domain), targets) as backup:
        backup.start()
        assert backup.progress() is not None
        domain.backup = (
            "<domainbackup><disks><disk><target file='/other'/></disk></disks></domainbackup>"
        )
        with pytest.raises(SnapshotFailed, match="another program has ended the copy"):
            backup.progress()
    assert not domain.aborted


def test_the_copy_is_complete(domain: Domain, targets: list[Target]) -> None:
    with Backup(Machine(domain), targets) as backup:
        backup.start()
        assert backup.progress() is not None
        os.close(os.open(targets[0].path, os.O_CREAT | os.O_WRONLY))
        domain.job, domain.ended = {"type": NONE}, {"type": COMPLETED, "operation": BACKUP}
        assert backup.progress() is None
    assert not domain.aborted
