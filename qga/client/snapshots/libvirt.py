"""Snapshots of a machine that libvirt runs.

Copies are libvirt's backups (virDomainBackupBegin), external snapshots its snapshots of disks
without metadata. libvirt creates the files, so they are on the host where it runs.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from qga.client.errors import AgentError, AgentTimeout, SnapshotFailed
from qga.client.libvirt_transport import LibvirtTransport, explained, in_time, open_libvirt
from qga.client.snapshots import machine
from qga.client.snapshots.folder import sync_by_name
from qga.client.snapshots.machine import Disk, Progress, Target

T = TypeVar("T")

# Seconds: libvirt waits for QEMU, and QEMU for slow disks.
PATIENCE = 60.0


class LibvirtMachine:
    """A domain. Raises ConnectError."""

    def __init__(self, uri: str, domain: str, deadline: float) -> None:
        self._transport: LibvirtTransport = open_libvirt(uri, domain, deadline)
        self.libvirt, self.domain = self._transport.libvirt, self._transport.domain
        host = urlsplit(self.domain.connect().getURI()).hostname
        if host:
            self.close()
            raise SnapshotFailed(f"libvirt runs on {host}: take the snapshot there")

    def disks(self) -> list[Disk]:
        definition = ET.fromstring(self.call(self.domain.XMLDesc))  # noqa: S314 - libvirt has written it
        return [self._disk(element) for element in definition.iterfind("devices/disk")]

    def copy(self, targets: Sequence[Target]) -> Backup:
        return Backup(self, targets)

    def external(self, targets: Sequence[Target]) -> External:
        return External(self, targets)

    def close(self) -> None:
        self._transport.close()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """A call to libvirt. Raises SnapshotFailed or AgentTimeout."""
        try:
            return in_time(lambda: function(*arguments), PATIENCE)
        except self.libvirt.libvirtError as error:
            raise SnapshotFailed(explained(self.libvirt, error)) from None
        except TimeoutError as error:
            name = getattr(function, "__name__", "call")
            raise AgentTimeout("", name, PATIENCE, str(error)) from None

    def _disk(self, element: ET.Element) -> Disk:
        target, source = element.find("target"), element.find("source")
        name = "" if target is None else target.get("dev", "")
        if source is None or not source.attrib:
            return Disk(name, cannot="it has no medium")
        file = source.get("file") or source.get("dev") or ""
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
            with suppress(AgentError):
                self._machine.call(self._machine.domain.abortJob)

    def start(self) -> None:
        self._started = True
        try:
            domain = self._machine.domain
            self._machine.call(domain.backupBegin, self._definition(), None, 0)
        except SnapshotFailed:
            self._started = False
            raise

    def progress(self) -> Progress | None:
        libvirt, domain = self._machine.libvirt, self._machine.domain
        found = self._machine.call(domain.jobStats)
        if found.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE:
            return Progress(found.get("disk_processed", 0), found.get("disk_total", 0))
        found = self._machine.call(domain.jobStats, libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        self._complete = True
        if found.get("type") != libvirt.VIR_DOMAIN_JOB_COMPLETED:
            reason = found.get("errmsg") or "libvirt has ended the copy"
            raise SnapshotFailed(f"libvirt failed to copy: {reason}")
        for target in self._targets:
            sync_by_name(target)
        return None

    def _definition(self) -> str:
        root = ET.Element("domainbackup", mode="push")
        disks = ET.SubElement(root, "disks")
        for disk, target in with_targets(self._machine.disks(), self._targets):
            if target is None:
                ET.SubElement(disks, "disk", name=disk.name, backup="no")
                continue
            element = ET.SubElement(disks, "disk", name=disk.name, backup="yes", type="file")
            ET.SubElement(element, "target", file=target.path)
            ET.SubElement(element, "driver", type=target.format)
        return ET.tostring(root, encoding="unicode")


class External(machine.External):
    """External snapshots of libvirt, which creates the files."""

    machine: LibvirtMachine

    def take(self) -> None:
        libvirt = self.machine.libvirt
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        )
        self.machine.call(self.machine.domain.snapshotCreateXML, self._definition(), flags)

    def _definition(self) -> str:
        root = ET.Element("domainsnapshot")
        disks = ET.SubElement(root, "disks")
        for disk, target in with_targets(self.machine.disks(), self.targets):
            if target is None:
                ET.SubElement(disks, "disk", name=disk.name, snapshot="no")
                continue
            element = ET.SubElement(disks, "disk", name=disk.name, snapshot="external")
            ET.SubElement(element, "source", file=target.path)
            ET.SubElement(element, "driver", type=target.format)
        return ET.tostring(root, encoding="unicode")


def with_targets(
    disks: Sequence[Disk], targets: Sequence[Target]
) -> list[tuple[Disk, Target | None]]:
    """All disks of the domain: libvirt takes those that are not named, too."""
    by_name = {target.disk.name: target for target in targets}
    return [(disk, by_name.get(disk.name)) for disk in disks]
