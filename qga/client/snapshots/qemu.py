"""Snapshots of a machine that QEMU runs without libvirt, through QMP.

A copy is a backup job of QEMU for each disk. It copies what the disk contained when the job
started, because what the guest overwrites is copied first. All jobs start in one transaction, so
the guest has to be frozen for that moment only. QEMU gets the new files as descriptors, so it needs
no access to the directory.

What must stay true: whatever happens, also an exception in the middle of a command, no job and no
node of ours is left in QEMU, and the machine runs on if it ran before.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Optional

from qga.client.conversion import converted, member
from qga.client.errors import AgentError, SnapshotFailed
from qga.client.hosts.qmp import Qmp, QmpRefused
from qga.client.snapshots import machine
from qga.client.snapshots.folder import create, reopen, sync
from qga.client.snapshots.jobs import (
    CONCLUDED,
    Job,
    attempt,
    end_jobs,
    jobs,
    raise_failure,
    transact,
    wait_until,
)
from qga.client.snapshots.leftovers import end_leftovers, new_prefix, note
from qga.client.snapshots.machine import Disk, Progress, Target
from qga.wording import counted

# QEMU's name for the file of a drive with snapshot=on.
TEMPORARY = re.compile(r'/vl\.\w{6}("|$)')

# Bytes that a file can have.
SIZES = range(2**63)

# Seconds for leaving nothing in QEMU: nobody can interrupt that.
CLEAN_UP_PATIENCE = 60.0

# Seconds until QEMU has written the end of a copy, on a disk that others may use, too.
CLOSE_PATIENCE = 600.0


class Image(NamedTuple):
    """ImageInfo of QMP, as far as it is needed here."""

    virtual_size: int
    actual_size: int = 0


class Inserted(NamedTuple):
    """BlockDeviceInfo of QMP."""

    file: str
    ro: bool
    node_name: str
    image: Image


class Block(NamedTuple):
    """BlockInfo of QMP."""

    device: str
    qdev: str = ""
    inserted: Optional[Inserted] = None


class QemuMachine:
    """A machine behind a QMP socket, without what earlier copies have left. Raises ConnectError."""

    def __init__(
        self,
        path: str,
        seconds: float,
        check: Callable[[socket.socket], None] = lambda _connection: None,
    ) -> None:
        self.qmp = Qmp(path, seconds, check)
        try:
            end_leftovers(self.qmp)
        except BaseException:
            self.close()
            raise

    def disks(self) -> list[Disk]:
        reply = self.qmp.execute("query-block")
        blocks = zip(converted(list[Block], reply), converted(list[dict], reply))  # type: ignore[type-arg]
        return [disk_of(block, allocated(raw)) for block, raw in blocks]

    def copy(self, targets: Sequence[Target]) -> Copy:
        return Copy(self.qmp, targets)

    def external(self, targets: Sequence[Target]) -> External:
        return External(self, targets)

    def close(self) -> None:
        self.qmp.close()


def disk_of(block: Block, used: int) -> Disk:
    # Devices are called /machine/peripheral/ID/virtio-backend.
    device = os.path.basename(block.qdev.removesuffix("/virtio-backend"))
    name = block.device or device
    found = block.inserted
    if found is None:
        return Disk(name, cannot="it has no medium")
    cannot = "it is read-only" if found.ro else ""
    if found.image.virtual_size not in SIZES:
        cannot = f"QEMU reports a size of {counted(found.image.virtual_size, 'byte')}"
    unfit = "it is temporary (snapshot=on)" if TEMPORARY.search(found.file) else ""
    size = found.image.virtual_size
    return Disk(name, size, min(used, size), found.file, unfit, cannot, found.node_name)


def allocated(block: Mapping[str, Any]) -> int:
    """Bytes that the images of a disk take on the host, those behind it included."""
    image, total = (block.get("inserted") or {}).get("image"), 0
    while isinstance(image, dict):
        total += converted(Image, image).actual_size
        image = image.get("backing-image")
    return total


class Copy:
    """Full copies of disks."""

    def __init__(self, qmp: Qmp, targets: Sequence[Target]) -> None:
        self.in_use = False
        self._qmp = qmp
        self._targets = targets
        self._prefix = new_prefix()
        self._first_set = secrets.randbelow(2**30) + 1
        self._files: list[int] = []
        self._ran = False

    def __enter__(self) -> Copy:
        try:
            self._ran = status(self._qmp) == "running"
            for number, target in enumerate(self._targets):
                self._prepare(number, target)
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._clean_up()

    def start(self) -> None:
        actions = [
            {
                "type": "blockdev-backup",
                "data": {
                    "job-id": self._name("job", number),
                    "device": target.disk.node,
                    "target": self._name("copy", number),
                    "sync": "full",
                    "auto-dismiss": False,
                },
            }
            for number, target in enumerate(self._targets)
        ]
        transact(self._qmp, actions)

    def progress(self) -> Progress | None:
        found = self._jobs()
        if len(found) < len(self._targets):
            raise SnapshotFailed("another program has ended the copy")
        for job in found:
            raise_failure(job)
        if all(job.status == CONCLUDED for job in found):
            self._complete(found)
            return None
        return Progress(sum(job.done for job in found), sum(job.total for job in found))

    def _complete(self, concluded: Sequence[Job]) -> None:
        """Have everything written, while the guest runs: QEMU holds it up for what we leave."""
        for job in concluded:
            self._qmp.execute("job-dismiss", {"id": job.id})
        for number, (target, fd) in enumerate(zip(self._targets, self._files)):
            sync(target, fd)
            self._close(number, target)
            sync(target, fd)

    def _close(self, number: int, target: Target) -> None:
        """QEMU writes the tables of qcow2 last: without them the copy is empty. It reports an error
        when the node becomes read-only, but none when it is deleted."""
        copy, file = self._name("copy", number), self._name("file", number)
        node = {"driver": target.format, "node-name": copy, "file": file, "read-only": True}
        try:
            self._qmp.execute("blockdev-reopen", {"options": [node]}, seconds=CLOSE_PATIENCE)
        except QmpRefused as refusal:
            if refusal.class_ != "CommandNotFound":  # before QEMU 6.1
                raise SnapshotFailed(
                    f"QEMU failed to write {target.path}: {refusal.reason}"
                ) from None
        self._qmp.execute("blockdev-del", {"node-name": copy}, seconds=CLOSE_PATIENCE)

    def _prepare(self, number: int, target: Target) -> None:
        """Create the file, and a node of QEMU for it."""
        self._hand_over(number, target)
        file, copy = self._name("file", number), self._name("copy", number)
        name = f"/dev/fdset/{self._first_set + number}"
        self._add(file, driver="file", filename=name)
        if target.format != "raw":
            self._format(file, target)
        self._add(copy, driver=target.format, file=file)

    def _hand_over(self, number: int, target: Target) -> None:
        fd = create(target)
        try:
            self._files.append(reopen(target, fd))
            where = {"fdset-id": self._first_set + number, "opaque": note(self._prefix)}
            self._qmp.execute("add-fd", where, descriptors=[fd])
        finally:
            os.close(fd)

    def _format(self, file: str, target: Target) -> None:
        job = self._name("create", 0)
        options = {"driver": target.format, "file": file, "size": target.disk.size}
        self._qmp.execute("blockdev-create", {"job-id": job, "options": options})
        wait_until(lambda: all(each.status == CONCLUDED for each in self._jobs()))
        for each in self._jobs():
            raise_failure(each)
        self._qmp.execute("job-dismiss", {"id": job})

    def _add(self, node: str, **options: object) -> None:
        self._qmp.execute("blockdev-add", {"node-name": node, **options})

    def _name(self, kind: str, number: int) -> str:
        return f"{self._prefix}-{kind}-{number}"

    def _jobs(self) -> list[Job]:
        """Those of this copy."""
        return jobs(self._qmp, self._is_ours)

    def _is_ours(self, name: str) -> bool:
        return name.startswith(self._prefix)

    def _clean_up(self) -> None:
        """Leave nothing in QEMU; if it has exited, everything has gone with it."""
        self._qmp.end = time.monotonic() + CLEAN_UP_PATIENCE
        try:
            with suppress(AgentError):
                wait_until(lambda: end_jobs(self._qmp, self._is_ours))
            for number in range(len(self._files)):
                for kind in ("copy", "file"):
                    attempt(self._qmp, "blockdev-del", {"node-name": self._name(kind, number)})
                attempt(self._qmp, "remove-fd", {"fdset-id": self._first_set + number})
            # A guest that wrote when there was no space was stopped by QEMU.
            if self._ran and status(self._qmp) == "io-error":
                attempt(self._qmp, "cont", {})
        except AgentError:
            pass
        finally:
            for fd in self._files:
                os.close(fd)
            self._files.clear()


def status(qmp: Qmp) -> str:
    return member(str, "status", qmp.execute("query-status"))


class External(machine.External):
    """External snapshots of QEMU, which creates the files."""

    machine: QemuMachine

    def take(self) -> None:
        transact(self.machine.qmp, list(self._actions()))

    def _actions(self) -> Iterator[dict[str, Any]]:
        prefix = new_prefix()
        for number, target in enumerate(self.targets):
            data = {
                "node-name": target.disk.node,
                "snapshot-file": target.path,
                "snapshot-node-name": f"{prefix}-{number}",
                "format": target.format,
            }
            yield {"type": "blockdev-snapshot-sync", "data": data}
