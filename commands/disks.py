"""The guest's disks, partitions and volumes, and their counters.

The counters are read here, because psutil has only 9 of the 17.
"""

import os
from contextlib import suppress
from typing import Optional

from qga import CommandGroup, NotRequired, UInt64, command, until_given_up
from qga.records import TypedDict

from ._block import (
    SYS_BLOCK,
    GuestDiskAddress,
    dev_path,
    disk_address,
    is_hidden,
    is_partition,
    is_virtual,
    members,
    parent,
)
from ._nvme import GuestDiskSmart, read_smart
from ._sysfs import keep_open, parse_number, read_kept, read_word, understood


class GuestDiskInfo(TypedDict):
    name: str
    partition: bool
    dependencies: NotRequired[list[str]]
    address: NotRequired[GuestDiskAddress]
    alias: NotRequired[str]
    smart: NotRequired[GuestDiskSmart]


GuestDiskStats = TypedDict(
    "GuestDiskStats",
    {
        "read-ios": UInt64,
        "read-merges": UInt64,
        "read-sectors": UInt64,
        "read-ticks": UInt64,
        "write-ios": UInt64,
        "write-merges": UInt64,
        "write-sectors": UInt64,
        "write-ticks": UInt64,
        "ios-pgr": UInt64,
        "total-ticks": UInt64,
        "weight-ticks": UInt64,
        "discard-ios": UInt64,
        "discard-merges": UInt64,
        "discard-sectors": UInt64,
        "discard-ticks": UInt64,
        "flush-ios": UInt64,
        "flush-ticks": UInt64,
    },
    total=False,
)

_SYS_DISKS = "/sys/block"  # without partitions

# The columns of proc_diskstats(5) after major, minor and name.
_FIGURES = tuple(GuestDiskStats.__annotations__)
_OLD_PARTITION_FIGURES = ("read-ios", "read-sectors", "write-ios", "write-sectors")


class GuestDiskStatsInfo(TypedDict):
    name: str
    major: UInt64
    minor: UInt64
    stats: GuestDiskStats


class Disks(CommandGroup):
    """Block devices."""

    @command(access="audit", blocking=True)
    def guest_get_disks(self) -> list[GuestDiskInfo]:
        """List disks, partitions and volumes, with their members, addresses and health.

        Devices without a medium are left out.
        """
        disks = []
        for name in until_given_up(_names()):
            if _size(name) and not is_hidden(name):
                with suppress(FileNotFoundError):  # unplugged meanwhile
                    disks.append(_disk(name))
        return disks

    @command(access="audit")
    def guest_get_diskstats(self) -> list[GuestDiskStatsInfo]:
        """Report the counters of each block device.

        Times (`ticks`) are in milliseconds, sectors have 512 bytes.
        """
        return understood(_diskstats, read_kept("/proc/diskstats").splitlines())


def _diskstats(line: bytes) -> GuestDiskStatsInfo:
    """Raises ValueError."""
    major, minor, name, *figures = line.split()
    return {
        "name": name.decode("utf-8", "replace"),
        "major": int(major),
        "minor": int(minor),
        "stats": _stats([int(figure) for figure in figures]),
    }


def _names() -> list[str]:
    """All block devices in the reverse order of sysfs, partitions before their disk, as in QEMU's
    agent.
    """
    disks = os.listdir(_SYS_DISKS)
    partitions = set(os.listdir(SYS_BLOCK)).difference(disks)
    return [name for disk in disks for name in (disk, *_partitions_of(disk, partitions))][::-1]


def _partitions_of(disk: str, partitions: set[str]) -> list[str]:
    # Most devices have none, and listing the directory of each takes as long as all the rest.
    if any(name.startswith(disk) for name in partitions):
        with suppress(FileNotFoundError):  # unplugged meanwhile
            return [name for name in os.listdir(f"{_SYS_DISKS}/{disk}") if name in partitions]
    return []


def _disk(name: str) -> GuestDiskInfo:
    partition = is_partition(name)
    below = [parent(name)] if partition else members(name)
    disk: GuestDiskInfo = {
        "name": dev_path(name),
        "partition": partition,
        "dependencies": [dev_path(part) for part in below],
    }
    alias = _mapper_name(name)
    if alias is not None:
        disk["alias"] = alias
    if partition or is_virtual(name):
        return disk
    disk["address"] = disk_address(name)
    if disk["address"]["bus-type"] == "nvme":
        smart = read_smart(dev_path(name))
        if smart is not None:
            disk["smart"] = smart
    return disk


def _stats(figures: list[int]) -> GuestDiskStats:
    names = _OLD_PARTITION_FIGURES if len(figures) == len(_OLD_PARTITION_FIGURES) else _FIGURES
    return dict(zip(names, figures))  # type: ignore[return-value]


def _size(name: str) -> int:
    """In sectors of 512 bytes; 0 without a medium."""
    path = f"{name}/size"
    return parse_number(_read(path) or "0", f"{SYS_BLOCK}/{path}")


def _mapper_name(name: str) -> Optional[str]:
    """The name of a device of the device mapper, all of which the kernel calls dm-NUMBER."""
    return _read(f"{name}/dm/name") if name.startswith("dm-") else None


def _read(path: str) -> Optional[str]:
    """An attribute in SYS_BLOCK, or None if there is none."""
    try:
        return read_word(path, keep_open(SYS_BLOCK))
    except OSError:
        return None
