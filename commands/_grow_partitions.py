"""Partitions that can be grown: by how much, and what is in the way.

Starts and sizes in sysfs are in sectors of 512 bytes, those of partition tables and of the tools in
logical sectors of the disk.
"""

from __future__ import annotations

import os
import re

from qga import QgaError
from qga.records import NamedTuple

from . import _grow_tools as tools
from ._block import SYS_BLOCK, dev_path, parent
from ._sysfs import parse_number, read_word

SECTOR = 512
LEAST = 1 << 20
"""Bytes. Less room is not used: tools align partitions to it, and it may hold the backup GPT."""

_GPT_MARK = b"EFI PART"
_GPT_BACKUP = 33  # logical sectors at the end of the disk
_MBR_MOST = 1 << 32  # logical sectors that an MBR can address
_FIRST_LOGICAL = 5  # number of the first partition inside an extended one

# Device, perhaps `*` for one that is booted from, start, end, sectors. The last such line is of the
# new situation.
_SFDISK_SIZE = r"^{}\s+(?:\*\s+)?[0-9]+\s+[0-9]+\s+([0-9]+)\s"
_GROWPART_NEW_SIZE = re.compile(r"\bnew: .*?\bsize=([0-9]+)")


class Partition(NamedTuple):
    """A partition; `start` and `end` are in sectors of 512 bytes."""

    name: str
    number: int
    start: int
    end: int


def partition(name: str) -> Partition:
    start, size, number = (_attribute(name, each) for each in ("start", "size", "partition"))
    return Partition(name, number, start, start + size)


def room_behind(this: Partition, disk_size: int) -> int:
    """The bytes between a partition and the next one, or the end of its disk.

    disk_size: bytes of the disk.
    Raises QgaError if there is room on the disk, but not for this partition.
    """
    limit = _end_of_disk(parent(this.name), disk_size)
    others = [each for each in _partitions_of(parent(this.name)) if each.start >= this.end]
    room = (min([limit, *(each.start for each in others)]) - this.end) * SECTOR
    rest = (limit - max([this.end, *(each.end for each in others)])) * SECTOR
    if room < LEAST <= rest:
        first = dev_path(min(others, key=lambda each: each.start).name)
        raise QgaError(f"{dev_path(this.name)} is not the last partition: {first} follows it")
    if room >= LEAST and _is_logical(this):
        raise QgaError(
            f"{dev_path(this.name)} is a logical partition: the extended partition around it would "
            "have to grow first"
        )
    return max(room, 0)


def require_tool() -> str:
    """The tool that grows partitions: growpart if it is there, otherwise sfdisk."""
    if tools.is_there("growpart"):
        return "growpart"
    tools.require("sfdisk", "partx")
    return "sfdisk"


def rehearse(this: Partition, tool: str) -> int:
    """How many bytes the partition would have. Raises QgaError if the tool would fail."""
    disk = parent(this.name)
    if tool == "growpart":
        told = tools.look("growpart", "--dry-run", dev_path(disk), str(this.number))
        found = _GROWPART_NEW_SIZE.findall(told)
    else:
        told = tools.look(*_sfdisk(this, "--no-act"), stdin=b",+\n")
        found = re.findall(_SFDISK_SIZE.format(re.escape(dev_path(this.name))), told, re.MULTILINE)
    if not found:
        reason = " ".join(told.split())
        raise QgaError(f"cannot tell how {tool} would grow {dev_path(this.name)}: {reason}")
    return int(found[-1]) * _logical_sector(disk)


def grow(this: Partition, tool: str) -> None:
    """Let a partition fill the room behind it. Raises QgaError."""
    disk = dev_path(parent(this.name))
    if tool == "growpart":
        tools.change("growpart", disk, str(this.number))
        return
    tools.change(*_sfdisk(this, "--no-tell-kernel"), stdin=b",+\n")
    tools.change("partx", "--update", "--nr", str(this.number), disk)


def _sfdisk(this: Partition, how: str) -> list[str]:
    keep = ["--wipe=never", "--wipe-partitions=never"]
    where = ["-N", str(this.number), dev_path(parent(this.name))]
    return ["sfdisk", how, "--no-reread", *keep, *where]


def _is_logical(this: Partition) -> bool:
    return this.number >= _FIRST_LOGICAL and not _has_gpt(parent(this.name))


def _end_of_disk(disk: str, disk_size: int) -> int:
    """Where the last partition may end."""
    sector = _logical_sector(disk)
    if _has_gpt(disk):
        return (disk_size - _GPT_BACKUP * sector) // SECTOR
    return min(disk_size, _MBR_MOST * sector) // SECTOR


def _has_gpt(disk: str) -> bool:
    sector = _logical_sector(disk)
    fd = os.open(dev_path(disk), os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, len(_GPT_MARK), sector) == _GPT_MARK
    finally:
        os.close(fd)


def _logical_sector(disk: str) -> int:
    return _attribute(disk, "queue/logical_block_size")


def _partitions_of(disk: str) -> list[Partition]:
    names = os.listdir(f"{SYS_BLOCK}/{disk}")
    return [
        partition(name) for name in names if os.path.exists(f"{SYS_BLOCK}/{disk}/{name}/partition")
    ]


def _attribute(name: str, attribute: str) -> int:
    path = f"{SYS_BLOCK}/{name}/{attribute}"
    return parse_number(read_word(path), path)
