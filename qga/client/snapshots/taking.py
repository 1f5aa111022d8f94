"""Takes a snapshot: the order of its steps, and what becomes of it when one fails.

What must stay true: the guest is frozen only until the copy has started, and thawed whatever
happens. A snapshot that fails leaves nothing behind, except files that the guest writes to already.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import NamedTuple

from qga.client.addresses import FORMS, resolve, uri_and_domain
from qga.client.agent import GuestAgent
from qga.client.copies.report import Observer
from qga.client.errors import AgentError, NotQuiesced, SnapshotFailed
from qga.client.hosts import discovery
from qga.client.snapshots.folder import Folder
from qga.client.snapshots.libvirt import LibvirtMachine
from qga.client.snapshots.machine import Machine, Operation, Target, choose
from qga.client.snapshots.qemu import QemuMachine
from qga.client.snapshots.quiescing import Outcome, start_frozen
from qga.client.snapshots.record import SkippedDisk, Snapshot, SnapshotDisk
from qga.client.waits import pause

# Seconds between two looks at the progress.
LOOK_INTERVAL = 0.2

FORMATS = ("qcow2", "raw")

NO_MONITOR = (
    "QEMU's QMP socket was not found: start QEMU with -qmp unix:PATH,server=on,wait=off, or give "
    "the path of its socket (--qmp)"
)


class How(NamedTuple):
    """How to take a snapshot: see GuestAgent.snapshot."""

    disks: Sequence[str] = ()
    external: bool = False
    format: str = "qcow2"
    qmp: str = ""
    unfrozen: Collection[str] = ()
    crash_consistent: bool = False


def take_snapshot(
    agent: GuestAgent, destination: str, how: How, observer: Observer | None = None
) -> Snapshot:
    """See GuestAgent.snapshot."""
    if how.format not in FORMATS:
        raise ValueError(f"'{how.format}' is not a format, expected: {' or '.join(FORMATS)}")
    if how.external and how.format != "qcow2":
        raise ValueError("an external snapshot has the format qcow2")
    started = time.monotonic()
    observer = observer or Observer()
    with closing(open_machine(agent, how.qmp)) as machine:
        chosen, skipped = choose(machine.disks(), how.disks)
        with Folder(destination) as folder:
            targets = folder.targets(chosen, how.format)
            if not how.external:
                folder.require_space(chosen)
            operation = (machine.external if how.external else machine.copy)(targets)
            try:
                with operation:
                    taken, outcome = begin(agent, operation, how, observer)
                    follow(operation, targets, observer)
                snapshot = described(agent, how, taken, targets, skipped, outcome, started)
                folder.write(snapshot)
            except BaseException as error:
                folder.kept = True  # should somebody interrupt the question
                folder.kept = operation.in_use
                if folder.kept and isinstance(error, AgentError):
                    error.reason += used(folder)
                raise
    if outcome.problem and not how.crash_consistent:
        raise NotQuiesced(outcome.problem + used(folder), started=True)
    return snapshot


def used(folder: Folder) -> str:
    """Whoever removes the files would take the guest its disks."""
    return f"; but the guest writes to the new files in {folder.path}"


def open_machine(agent: GuestAgent, qmp: str) -> Machine:
    """The way to the machine of this agent. Raises ConnectError or SnapshotFailed."""
    address, socket = place_of(agent.address)
    if address.startswith("libvirt:"):
        if qmp:
            raise SnapshotFailed(
                "libvirt runs this guest and takes the snapshot itself: leave out --qmp"
            )
        uri, domain = uri_and_domain(address.partition(":")[2])
        return LibvirtMachine(uri, domain, time.monotonic() + agent.timeout)
    if qmp:
        path = qmp.removeprefix("unix:")
        return QemuMachine(path, agent.timeout, discovery.same_machine(socket, path))
    if not socket:
        raise SnapshotFailed(f"{NO_MONITOR} (an agent on vsock does not show that)")
    monitor = discovery.monitor_of(socket)
    if monitor is None:
        raise SnapshotFailed(NO_MONITOR)
    return QemuMachine(monitor.path, agent.timeout, monitor.check)


def place_of(address: str) -> tuple[str, str]:
    """The address, through libvirt if it runs the guest; and the socket of the agent, or ""."""
    scheme, colon, place = address.partition(":")
    socket = place if scheme == "unix" else ""
    if not colon or scheme not in FORMS:
        guest = resolve(address)
        address, socket = guest.address, guest.socket
    elif scheme == "proxmox":
        socket = discovery.proxmox_socket(place)
    return (socket and discovery.libvirt_domain_of(socket)) or address, socket


def begin(
    agent: GuestAgent, operation: Operation, how: How, observer: Observer
) -> tuple[float, Outcome]:
    """The moment of the snapshot, and how the guest was frozen for it."""
    taken = 0.0

    def start() -> None:
        nonlocal taken
        taken = time.time()
        operation.start()

    outcome = start_frozen(agent, start, how.unfrozen, how.crash_consistent)
    if outcome.problem and not (how.crash_consistent or operation.in_use):
        raise NotQuiesced(outcome.problem, outcome.cause, started=True) from outcome.cause
    if outcome.problem and how.crash_consistent:
        observer.noted(f"the snapshot is crash-consistent only: {outcome.problem}")
    return taken, outcome


def follow(operation: Operation, targets: Sequence[Target], observer: Observer) -> None:
    """Wait for the end of the copy."""
    total = done = 0
    observer.started(", ".join(target.disk.name for target in targets))
    while (progress := operation.progress()) is not None:
        if progress.total != total:
            total = progress.total
            observer.planned(len(targets), total)
        observer.moved(max(progress.done - done, 0))
        done = max(progress.done, done)
        pause(LOOK_INTERVAL)
    observer.moved(max(total - done, 0))


def described(
    agent: GuestAgent,
    how: How,
    taken: float,
    targets: Sequence[Target],
    skipped: list[SkippedDisk],
    outcome: Outcome,
    started: float,
) -> Snapshot:
    disks = [
        SnapshotDisk(
            target.disk.name,
            os.path.basename(target.path),
            target.format,
            target.disk.size,
            target.disk.file if how.external else None,
        )
        for target in targets
    ]
    return Snapshot(
        agent.address,
        round(taken, 3),
        how.external,
        not outcome.problem,
        disks,
        skipped,
        round(time.monotonic() - started, 3),
        outcome.freeze,
        outcome.problem or None,
    )
