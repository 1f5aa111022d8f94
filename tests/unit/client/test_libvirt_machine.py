"""A snapshot by libvirt is ours and ends with us, although others use the domain and calls hang."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
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
OTHER = "<domainbackup><disks><disk><target file='/other'/></disk></disks></domainbackup>"

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
        self.may_return, self.hangs = threading.Event(), threading.Event()
        self.may_return.set()

    def close(self) -> None:
        self.may_return.set()

    def hang(self) -> None:
        self.hangs.set()
        self.may_return.wait(60)
        self.hangs.clear()

    def XMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        return XML.format("".join(DISK.format(file, name) for name, file in self.files.items()))

    def blockInfo(self, name: str) -> tuple[int, int, int]:  # noqa: N802 - libvirt's name
        return 1024, 512, 512

    def backupBegin(self, definition: str, *_: object) -> None:  # noqa: N802 - libvirt's name
        self.hang()
        self.backup, self.job = definition, {"type": UNBOUNDED, "operation": BACKUP}

    def backupGetXMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        if self.job.get("operation") != BACKUP:
            raise Refused("no domain backup job present")
        return self.backup

    def jobStats(self, completed: int = 0) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return self.ended if completed else self.job

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        self.aborted += 1
        self.job = {"type": NONE}

    def snapshotCreateXML(self, definition: str, _: int) -> None:  # noqa: N802 - libvirt's name
        self.hang()
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


GiveUp = Callable[[BaseException], None]


@pytest.fixture
def give_up(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> GiveUp:
    """Have one call hang, and this error raised in place of its outcome."""

    def prepare(error: BaseException) -> None:
        def outcome_of(call: Future[Any], _: float) -> Any:
            while not call.done():
                if domain.hangs.wait(0.01):
                    raise error
            return call.result()

        domain.may_return.clear()
        monkeypatch.setattr(libvirt, "outcome_of", outcome_of)

    return prepare


def test_a_copy_that_starts_after_it_was_given_up_is_ended(
    domain: Domain, targets: list[Target], give_up: GiveUp
) -> None:
    give_up(TimeoutError())
    with pytest.raises(AgentTimeout), Backup(Machine(domain), targets) as backup:
        try:
            backup.start()
        finally:
            threading.Timer(0.05, domain.may_return.set).start()
    assert domain.backup
    assert domain.aborted == 1
    assert domain.job["type"] == NONE


@pytest.mark.parametrize("returns", [True, False], ids=["it returns", "it hangs"])
def test_a_snapshot_that_was_given_up_may_still_be_taken(
    domain: Domain,
    targets: list[Target],
    give_up: GiveUp,
    monkeypatch: pytest.MonkeyPatch,
    returns: bool,
) -> None:
    """Without its file the guest would lose what it writes."""
    give_up(TimeoutError())
    snapshot = External(Machine(domain), targets)
    with pytest.raises(AgentTimeout):
        snapshot.start()
    if returns:
        threading.Timer(0.05, domain.may_return.set).start()
    else:
        monkeypatch.setattr(libvirt, "PATIENCE", 0.01)
    assert snapshot.in_use


@pytest.mark.parametrize("operation", [BACKUP, MIGRATION], ids=["a backup", "a migration"])
def test_a_job_of_another_program_outlives_a_copy_that_was_given_up(
    domain: Domain,
    targets: list[Target],
    give_up: GiveUp,
    monkeypatch: pytest.MonkeyPatch,
    operation: int,
) -> None:
    """Because of that job libvirt refuses ours, after nobody waits for it any more."""

    def refuse(*_: object) -> None:
        domain.hang()
        raise Refused("another job is active")

    monkeypatch.setattr(domain, "backupBegin", refuse)
    give_up(KeyboardInterrupt())
    domain.backup = OTHER if operation == BACKUP else ""
    domain.job = {"type": UNBOUNDED, "operation": operation}
    with pytest.raises(KeyboardInterrupt), Backup(Machine(domain), targets) as backup:
        try:
            backup.start()
        finally:
            domain.may_return.set()
    assert not domain.aborted


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


def test_without_threads_it_is_said_that_a_copy_may_go_on(
    domain: Domain, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    machine = Machine(domain)
    machine.name = "web"
    lost = "cannot ask libvirt: can't start new thread; libvirt may go on with the copy"
    with pytest.raises(SnapshotFailed, match=lost), Backup(machine, targets) as backup:
        backup.start()
        monkeypatch.setattr(threading.Thread, "start", start)
        backup.progress()


def test_what_ends_well_and_is_no_backup(domain: Domain, targets: list[Target]) -> None:
    """Another program has ended ours, and has migrated or saved the domain since."""
    with Backup(Machine(domain), targets) as backup:
        backup.start()
        domain.job, domain.ended = {"type": NONE}, {"type": COMPLETED, "operation": MIGRATION}
        with pytest.raises(SnapshotFailed, match="another program has ended it"):
            backup.progress()


def test_a_backup_of_another_program(domain: Domain, targets: list[Target]) -> None:
    """It is not taken for ours, and not ended."""
    with Backup(Machine(domain), targets) as backup:
        backup.start()
        assert backup.progress() is not None
        domain.backup = OTHER
        with pytest.raises(SnapshotFailed, match="another program has ended it"):
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
