"""The guest's disks and filesystems."""

import os.path
from typing import NamedTuple, Optional

import typer

from qga.client.agent import GuestAgent
from qga.client.errors import CommandNotFound
from qga.client.results import DiskAddress, DiskCounters, DiskInfo, FilesystemInfo, TrimResult
from qga.ctl.app import FAILED, JSON, answer, app
from qga.ctl.tables import Row, show_table
from qga.ctl.units import percent, size
from qga.settings import values

SECTOR = 512  # bytes, whatever the disk's are


class Disk(NamedTuple):
    """What a disk is, and what it has done where the agent tells that."""

    disk: DiskInfo
    stats: Optional[DiskCounters] = None


@app.command()
def disks(context: typer.Context, as_json: bool = JSON) -> None:
    """Show the guest's disks, partitions and volumes: where they sit, and what they have done.

    \b
    Examples:
      qgactl disks
      qgactl disks --json
    """
    answer(context, read_disks, show_disks)


def read_disks(agent: GuestAgent) -> list[Disk]:
    found = agent.disks()
    try:
        stats = {entry.name: entry.stats for entry in agent.disk_stats()}
    except CommandNotFound:  # an agent before 7.1, or one that may not tell
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
    if min(pci) < 0:
        return None
    controller = f"{pci.domain:04x}:{pci.bus:02x}:{pci.slot:02x}.{pci.function:x}"
    if not (address.bus or address.target or address.unit):
        return controller
    return f"{controller} {address.bus}:{address.target}:{address.unit}"


def sectors(count: Optional[int]) -> Optional[str]:
    return None if count is None else size(count * SECTOR)


@app.command()
def fs(context: typer.Context, as_json: bool = JSON) -> None:
    """Show the guest's filesystems and how full they are, as an ordinary user would find them.

    \b
    Examples:
      qgactl fs
      qgactl fs --json
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


def parse_size(text: str) -> int:
    try:
        return values.parse_size(text) if text != "0" else 0
    except ValueError:
        raise typer.BadParameter(
            f"'{text}' is no number of bytes, which may have K, M or G behind it"
        ) from None


@app.command()
def trim(
    context: typer.Context,
    minimum: str = typer.Option(
        "0", metavar="SIZE", help="Leave shorter runs of free blocks alone: bytes, or as 64K, 1M."
    ),
    as_json: bool = JSON,
) -> None:
    """Have the guest give the blocks that its filesystems do not use back to the host.

    The exit status is 1 if that could be done for no filesystem.

    \b
    Examples:
      qgactl trim
      qgactl trim --minimum 1M
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
