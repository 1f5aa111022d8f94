"""The guest's disks and filesystems."""

import os.path
from typing import NamedTuple, Optional

import typer

from qga.client.agent import GuestAgent
from qga.client.errors import CommandNotFound
from qga.client.storage import DiskAddress, DiskCounters, DiskInfo, FilesystemInfo, TrimResult
from qga.ctl.app import FAILED, answer, command
from qga.ctl.command import ADVANCED, LOOK
from qga.ctl.tables import Row, show_table
from qga.ctl.units import percent, size
from qga.ctl.values import parse_size
from qga.ctl.values import size as valid_size

SECTOR = 512  # bytes, whatever the disk's are


class Disk(NamedTuple):
    """A disk, and its counters if the agent reports them."""

    disk: DiskInfo
    stats: Optional[DiskCounters] = None


@command(LOOK)
def disks(context: typer.Context) -> None:
    """List disks, partitions and volumes.

    \b
    Examples:
      qgactl disks web
      qgactl disks web --json
    """
    answer(context, read_disks, show_disks)


def read_disks(agent: GuestAgent) -> list[Disk]:
    found = sorted(agent.disks(), key=lambda disk: disk.name)
    try:
        stats = {entry.name: entry.stats for entry in agent.disk_stats()}
    except CommandNotFound:  # before QEMU 7.1, or disabled
        stats = {}
    return [Disk(disk, stats.get(os.path.basename(disk.name))) for disk in found]


def show_disks(disks: list[Disk]) -> None:
    heads = ("Device", "Kind", "Bus", "Address", "Serial", "Made of", "Read", "Written")
    show_table(heads, map(disk_row, disks), right=("Read", "Written"))


def disk_row(entry: Disk) -> Row:
    disk, done = entry
    address = disk.address
    return (
        f"{disk.name} ({disk.alias})" if disk.alias else disk.name,
        kind(disk),
        address.bus_type if address else None,
        place(address) if address else None,
        address.serial if address else None,
        ", ".join(disk.dependencies) or None,
        sectors(done.read_sectors if done else None),
        sectors(done.write_sectors if done else None),
    )


def kind(disk: DiskInfo) -> str:
    if disk.partition:
        return "partition"
    return "disk" if disk.address else "volume"


def place(address: DiskAddress) -> Optional[str]:
    """The controller as lspci(8) names it, and the disk's place on it, where it has one."""
    pci = address.pci_controller
    # QEMU's agent reports -1 for a disk that is on no PCI controller.
    if min(pci) < 0:
        return None
    controller = f"{pci.domain:04x}:{pci.bus:02x}:{pci.slot:02x}.{pci.function:x}"
    if not (address.bus or address.target or address.unit):
        return controller
    return f"{controller} {address.bus}:{address.target}:{address.unit}"


def sectors(count: Optional[int]) -> Optional[str]:
    return None if count is None else size(count * SECTOR)


@command(LOOK)
def fs(context: typer.Context) -> None:
    """List filesystems and how full they are.

    Sizes are those that an ordinary user sees, without the blocks reserved for root.

    \b
    Examples:
      qgactl fs web
      qgactl fs web --json
    """
    answer(context, GuestAgent.filesystems, show_filesystems)


def show_filesystems(filesystems: list[FilesystemInfo]) -> None:
    numbers = ("Size", "Used", "Free", "Use")
    heads = ("Mounted at", "Device", "Type", *numbers)
    show_table(heads, map(filesystem_row, filesystems), right=numbers)


def filesystem_row(filesystem: FilesystemInfo) -> Row:
    what = (filesystem.mountpoint, filesystem.name, filesystem.type)
    used, total = filesystem.used_bytes, filesystem.total_bytes
    if used is None or total is None:
        return (*what, None, None, None, None)
    return (*what, size(total), size(used), size(total - used), percent(used, total))


@command(ADVANCED)
def trim(
    context: typer.Context,
    minimum: str = typer.Option(
        "0",
        metavar="SIZE",
        callback=valid_size,
        help="Skip contiguous free ranges that are shorter: bytes, or such as 64K or 1M.",
    ),
) -> None:
    """Discard unused blocks, so that the host gets the space back.

    The exit status is 1 if no filesystem could be trimmed.

    \b
    Examples:
      qgactl trim web
      qgactl trim web --minimum 1M
    """
    least = parse_size(minimum)
    results: list[TrimResult] = []

    def ask(agent: GuestAgent) -> list[TrimResult]:
        results.extend(agent.trim(least))
        return results

    answer(context, ask, show_trimmed)
    if results and all(result.error is not None for result in results):
        raise typer.Exit(FAILED)


def show_trimmed(results: list[TrimResult]) -> None:
    rows = ((result.path, size(result.trimmed), result.error or "") for result in results)
    show_table(("Mounted at", "Trimmed", "Error"), rows, right=("Trimmed",))
