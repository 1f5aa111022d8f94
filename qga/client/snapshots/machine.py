"""What a snapshot needs of a machine, whoever runs it: its disks, and what to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional, Protocol

from qga.client.errors import AgentError, SnapshotFailed
from qga.client.snapshots.record import SkippedDisk


class Disk(NamedTuple):
    """A disk of a machine.

    size: in bytes; 0 if there is no medium. used: bytes that are allocated on the host; 0 if
    unknown. file: what is behind it. unfit: why it is in no snapshot unless it is asked for.
    cannot: why it can be in none. node: how QEMU calls it.
    """

    name: str
    size: int = 0
    used: int = 0
    file: str = ""
    unfit: str = ""
    cannot: str = ""
    node: str = ""


class Target(NamedTuple):
    """Where a disk goes: an absolute path, and the format of the file.

    folder: a descriptor of the directory.
    """

    disk: Disk
    path: str
    format: str
    folder: int


class Progress(NamedTuple):
    """Bytes that are copied, and bytes to copy."""

    done: int
    total: int


class Operation(Protocol):
    """A copy or an external snapshot of some disks.

    A context: at its end it undoes what can be undone, unless all was completed.
    """

    def __enter__(self) -> Operation: ...

    def __exit__(self, *raised: object) -> None: ...

    def start(self) -> None:
        """The moment of the snapshot. It takes no longer than it has to: the guest is frozen."""

    def progress(self) -> Optional[Progress]:
        """None once all is complete. Raises SnapshotFailed."""

    @property
    def in_use(self) -> bool:
        """Whether the guest may write to the files, so that they must not be removed."""


class Machine(Protocol):
    def disks(self) -> list[Disk]: ...

    def copy(self, targets: Sequence[Target]) -> Operation: ...

    def external(self, targets: Sequence[Target]) -> Operation: ...

    def close(self) -> None: ...


class External:
    """An external snapshot: the guest writes to the new files from its start on."""

    def __init__(self, machine: Machine, targets: Sequence[Target]) -> None:
        self.machine = machine
        self.targets = targets
        self._begun = self._complete = False

    def __enter__(self) -> External:
        return self

    def __exit__(self, *raised: object) -> None:
        """There is nothing to undo: it was taken or not."""

    @property
    def in_use(self) -> bool:
        if self._complete or not self._begun:
            return self._complete
        try:
            files = {disk.name: disk.file for disk in self.machine.disks()}
        except AgentError:
            return True  # it may be
        disks = [target.disk for target in self.targets]
        return any(files.get(disk.name) != disk.file for disk in disks)

    def start(self) -> None:
        self._begun = True
        self.take()
        self._complete = True

    def take(self) -> None:
        """Have QEMU or libvirt create the files and let the guest write to them."""
        raise NotImplementedError

    def progress(self) -> Optional[Progress]:
        return None


def choose(disks: Sequence[Disk], names: Sequence[str]) -> tuple[list[Disk], list[SkippedDisk]]:
    """The disks with these names, or all that are fit for it; and the others. SnapshotFailed."""
    known = {disk.name: disk for disk in disks}
    for name in names:
        if name not in known:
            have = ", ".join(known) or "none"
            raise SnapshotFailed(f"the machine has no disk '{name}'; it has {have}")
        if known[name].cannot:
            raise SnapshotFailed(f"disk {name}: {known[name].cannot}")
    chosen, skipped = [], []
    for disk in disks:
        reason = disk.cannot or disk.unfit
        if names:
            reason = "" if disk.name in names else "not asked for"
        if reason:
            skipped.append(SkippedDisk(disk.name, reason))
        else:
            chosen.append(disk)
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped)
        raise SnapshotFailed(f"the machine has no disk to copy ({reasons or 'it has none'})")
    return chosen, skipped
