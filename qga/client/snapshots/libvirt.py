"""Snapshots of a machine that libvirt runs.

Copies are libvirt's backups (virDomainBackupBegin), external snapshots its snapshots of disks
without metadata. libvirt creates the files, so they are on the host where it runs.

What must stay true: a call that is abandoned may still change the machine, so nothing is removed
or left to itself before its end. What passes for a copy is ours, whatever other clients do.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from qga.client.errors import AgentError, AgentTimeout, SnapshotFailed
from qga.client.libvirt_transport import (
    LibvirtTransport,
    explained,
    has_returned,
    open_libvirt,
    outcome_of,
)
from qga.client.snapshots import machine
from qga.client.snapshots.folder import sync_by_name
from qga.client.snapshots.machine import Disk, Progress, Target
from qga.client.texts import reason_of
from qga.client.threads import beside
from qga.client.waits import undisturbed

T = TypeVar("T")

# Seconds: libvirt waits for QEMU, and QEMU for slow disks.
PATIENCE = 60.0

ENDED = "libvirt no longer reports the copy: another program has ended it, or started a job since"


class LibvirtMachine:
    """A domain. Raises ConnectError."""

    def __init__(self, uri: str, domain: str, deadline: float) -> None:
        self.name = domain
        self._last: Future[Any] | None = None
        self._transport: LibvirtTransport = open_libvirt(uri, domain, deadline)
        self.libvirt, self.domain = self._transport.libvirt, self._transport.domain
        host = urlsplit(self.domain.connect().getURI()).hostname
        if host:
            self.close()
            raise SnapshotFailed(f"libvirt runs on {host}: take the snapshot there")

    def disks(self) -> list[Disk]:
        return [self._disk(name, element) for name, element in self._elements()]

    def copy(self, targets: Sequence[Target]) -> Backup:
        return Backup(self, targets)

    def external(self, targets: Sequence[Target]) -> External:
        return External(self, targets)

    def close(self) -> None:
        self._transport.close()

    def files(self) -> dict[str, str]:
        """What is behind each disk, by its name."""
        return {name: file_of(element) for name, element in self._elements()}

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """A call to libvirt. Raises SnapshotFailed or AgentTimeout."""
        self._last = call = beside(lambda: function(*arguments))
        try:
            return outcome_of(call, PATIENCE)
        except self.libvirt.libvirtError as error:
            raise SnapshotFailed(explained(self.libvirt, error)) from None
        except TimeoutError as error:
            name = getattr(function, "__name__", "call")
            raise AgentTimeout("", name, PATIENCE, str(error)) from None
        except OSError as error:  # there can be no more threads
            raise SnapshotFailed(f"cannot ask libvirt: {reason_of(error)}") from None

    def is_settled(self) -> bool:
        """Whether the last call has returned, though perhaps nobody waits for it any more."""
        with undisturbed():
            return self._last is None or has_returned(self._last, PATIENCE)

    def _elements(self) -> Iterator[tuple[str, ET.Element]]:
        definition = ET.fromstring(self.call(self.domain.XMLDesc))  # noqa: S314 - libvirt has written it
        for element in definition.iterfind("devices/disk"):
            target = element.find("target")
            yield "" if target is None else target.get("dev", ""), element

    def _disk(self, name: str, element: ET.Element) -> Disk:
        source, file = element.find("source"), file_of(element)
        if source is None or not source.attrib:
            return Disk(name, cannot="it has no medium")
        if element.find("readonly") is not None:
            return Disk(name, file=file, cannot="it is read-only")
        unfit = "it is temporary (transient)" if element.find("transient") is not None else ""
        size, used, _ = self.call(self.domain.blockInfo, name)
        return Disk(name, size, min(size, used), file, unfit)


class Backup:
    """Full copies of disks."""

    in_use = False

    def __init__(self, machine: LibvirtMachine, targets: Sequence[Target]) -> None:
        self._machine = machine
        self._targets = targets
        self._started = self._complete = False

    def __enter__(self) -> Backup:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._started and not self._complete:
            self._machine.is_settled()  # a copy that starts after its end would go on
            with suppress(AgentError):
                if self._is_ours():
                    self._machine.call(self._machine.domain.abortJob)
            error = raised[1]
            if isinstance(error, AgentError) and self._may_go_on():
                stop = f"virsh domjobabort {self._machine.name}"
                error.reason += f"; libvirt may go on with the copy, until `{stop}` ends it"

    def _may_go_on(self) -> bool:
        try:
            is_backup = self._is_backup(self._machine.call(self._machine.domain.jobStats))
        except AgentError:  # such as after the end of libvirt
            return True
        return is_backup and not self._is_replaced()

    def start(self) -> None:
        definition = self._definition()
        self._started = True
        try:
            self._machine.call(self._machine.domain.backupBegin, definition, None, 0)
        except SnapshotFailed:
            self._started = False
            raise

    def progress(self) -> Progress | None:
        libvirt, domain = self._machine.libvirt, self._machine.domain
        found = self._machine.call(domain.jobStats)
        if self._is_backup(found):
            if self._is_replaced():
                raise SnapshotFailed(ENDED)
            return Progress(found.get("disk_processed", 0), found.get("disk_total", 0))
        found = self._machine.call(domain.jobStats, libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        self._complete = True
        if not self._is_backup(found):
            raise SnapshotFailed(ENDED)
        if found["type"] != libvirt.VIR_DOMAIN_JOB_COMPLETED:
            reason = found.get("errmsg") or "libvirt has ended the copy"
            raise SnapshotFailed(f"libvirt failed to copy: {reason}")
        for target in self._targets:
            sync_by_name(target)
        return None

    def _is_backup(self, job: dict[str, Any]) -> bool:
        """Whether it is a job, and none of another kind."""
        libvirt = self._machine.libvirt
        none, backup = libvirt.VIR_DOMAIN_JOB_NONE, libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP
        return bool(job.get("type", none) != none and job.get("operation", backup) == backup)

    def _is_ours(self) -> bool:
        """Whether the backup in progress is. Raises SnapshotFailed if there is none."""
        text = self._machine.call(self._machine.domain.backupGetXMLDesc)
        found = {target.get("file") for target in ET.fromstring(text).iter("target")}  # noqa: S314
        return found.issuperset(target.path for target in self._targets)

    def _is_replaced(self) -> bool:
        try:
            return not self._is_ours()
        except SnapshotFailed:  # it has just ended
            return False

    def _definition(self) -> str:
        root = ET.Element("domainbackup", mode="push")
        disks = ET.SubElement(root, "disks")
        for name, target in with_targets(self._machine.files(), self._targets):
            if target is None:
                ET.SubElement(disks, "disk", name=name, backup="no")
                continue
            element = ET.SubElement(disks, "disk", name=name, backup="yes", type="file")
            ET.SubElement(element, "target", file=target.path)
            ET.SubElement(element, "driver", type=target.format)
        return ET.tostring(root, encoding="unicode")


class External(machine.External):
    """External snapshots of libvirt, which creates the files."""

    machine: LibvirtMachine

    @property
    def in_use(self) -> bool:
        return not self.machine.is_settled() or super().in_use

    def start(self) -> None:
        self._wanted = self._definition()
        super().start()

    def take(self) -> None:
        libvirt = self.machine.libvirt
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        )
        self.machine.call(self.machine.domain.snapshotCreateXML, self._wanted, flags)

    def _definition(self) -> str:
        root = ET.Element("domainsnapshot")
        disks = ET.SubElement(root, "disks")
        for name, target in with_targets(self.machine.files(), self.targets):
            if target is None:
                ET.SubElement(disks, "disk", name=name, snapshot="no")
                continue
            element = ET.SubElement(disks, "disk", name=name, snapshot="external")
            ET.SubElement(element, "source", file=target.path)
            ET.SubElement(element, "driver", type=target.format)
        return ET.tostring(root, encoding="unicode")


def with_targets(
    files: Mapping[str, str], targets: Sequence[Target]
) -> list[tuple[str, Target | None]]:
    """All disks of the domain: libvirt takes those that are not named, too.

    Raises SnapshotFailed if one is no longer what was to be copied, such as after a snapshot that
    another program has taken.
    """
    by_name = {target.disk.name: target for target in targets}
    for name, target in by_name.items():
        if files.get(name) != target.disk.file:
            now = f"is {files[name]} now" if name in files else "is gone"
            raise SnapshotFailed(f"disk {name} was {target.disk.file}, and {now}: try again")
    return [(name, by_name.get(name)) for name in files]


def file_of(disk: ET.Element) -> str:
    """The file or device behind a disk; "" for others."""
    source = disk.find("source")
    return "" if source is None else source.get("file") or source.get("dev") or ""
