"""What to grow so that a filesystem can: the devices that it lies on, from the disk up.

A device grows as far as what is beneath it will have grown by then, so the plan is made from the
bottom to the top. Nothing is changed here; every tool that can rehearse its step does.
"""

from __future__ import annotations

import os
import re
from errno import ENOENT
from typing import Callable

from qga import QgaError, c_string
from qga.records import NamedTuple
from qga.wording import counted

from . import _grow_partitions as partitions
from . import _grow_tools as tools
from ._block import SYS_BLOCK, dev_path, device_name, is_partition, made_of, parent
from ._grow_filesystems import Filesystem
from ._grow_partitions import LEAST, SECTOR
from ._sysfs import parse_number, read_word

_CRYPT = re.compile(r"CRYPT-(LUKS[0-9]|PLAIN)-")
_CRYPT_OFFSET = re.compile(r"^\s*offset:\s*([0-9]+)", re.MULTILINE)
_IN_KEYRING = re.compile(r"^\s*key location:\s*keyring", re.MULTILINE)
_CRYPT_SECTOR = 4096  # the largest of dm-crypt
_LVM = "LVM-"

_FIELD = re.compile(r"LVM2_(\w+)='([^']*)'")
_OF_VOLUME = "vg_name,lv_attr,lv_layout"
_OF_GROUP = "pv_name,dev_size,pe_start,pv_pe_count,vg_extent_size,vg_free_count,vg_missing_pv_count"


class Step(NamedTuple):
    """One device, or the filesystem, to be grown by a tool.

    before, after: bytes; `after` is a forecast. measure: returns the size that it has now.
    """

    layer: str
    device: str
    tool: str
    before: int
    after: int
    grow: Callable[[], None]
    measure: Callable[[], int]


class Plan:
    """The steps in their order, and why some devices cannot grow."""

    def __init__(self, filesystem: Filesystem, passphrase: str | None) -> None:
        """Make the plan. Raises QgaError if a step would fail."""
        self.steps: list[Step] = []
        self.obstacles: list[str] = []
        self._passphrase = passphrase
        before, room = filesystem.size, self._size_of(filesystem.name)
        if room - before >= LEAST:
            filesystem.check(room)
            self._add(
                Step(
                    "filesystem",
                    filesystem.mountpoint,
                    filesystem.tool,
                    before,
                    room,
                    filesystem.grow,
                    lambda: filesystem.size,
                )
            )

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return step.after

    def _size_of(self, name: str) -> int:
        """The bytes that a device will have."""
        if read_word(f"{SYS_BLOCK}/{name}/ro") != "0":
            raise QgaError(f"{dev_path(name)} is read-only")
        if is_partition(name):
            return self._size_of_partition(name)
        kind = _mapped_as(name)
        if _CRYPT.match(kind):
            return self._size_of_crypt(name)
        if kind.startswith(_LVM):
            return self._size_of_volume(name)
        members = made_of(name)
        if members:
            self.obstacles.append(_by_hand(name, members))
        else:
            _rescan(name)
        return _size(name)

    def _size_of_partition(self, name: str) -> int:
        this = partitions.partition(name)
        before = _size(name)
        disk_size = self._size_of(parent(name))
        try:
            room = partitions.room_behind(this, disk_size)
        except QgaError as obstacle:
            self.obstacles.append(str(obstacle))
            return before
        if room < LEAST:
            return before
        tool = partitions.require_tool()
        return self._add(
            Step(
                "partition",
                dev_path(name),
                tool,
                before,
                partitions.rehearse(this, tool),
                lambda: partitions.grow(this, tool),
                lambda: _size(name),
            )
        )

    def _size_of_crypt(self, name: str) -> int:
        (lower,) = made_of(name)
        before, below = _size(name), self._size_of(lower)
        mapping = read_word(f"{SYS_BLOCK}/{name}/dm/name")
        tools.require("cryptsetup")
        status = tools.look("cryptsetup", "status", mapping)
        offset = _CRYPT_OFFSET.search(status)
        if offset is None:
            raise QgaError(f"cannot tell where {mapping} has its data on {dev_path(lower)}")
        after = (below - int(offset[1]) * SECTOR) // _CRYPT_SECTOR * _CRYPT_SECTOR
        if after <= before:
            return before
        stdin = self._unlocking(mapping, lower) if _IN_KEYRING.search(status) else b""
        return self._add(
            Step(
                "crypt",
                f"/dev/mapper/{mapping}",
                "cryptsetup",
                before,
                after,
                lambda: tools.change("cryptsetup", "--batch-mode", "resize", mapping, stdin=stdin),
                lambda: _size(name),
            )
        )

    def _unlocking(self, mapping: str, lower: str) -> bytes:
        """The standard input for cryptsetup, once it is known to be right."""
        if self._passphrase is None:
            raise QgaError(
                f"a passphrase is required to grow {mapping}: the kernel does not reveal the key "
                "of a LUKS2 volume"
            )
        stdin = c_string(self._passphrase)
        try:
            tools.look("cryptsetup", "open", "--test-passphrase", dev_path(lower), stdin=stdin)
        except tools.ToolError as error:
            raise QgaError(f"the passphrase does not open {dev_path(lower)}: {error}") from None
        return stdin

    def _size_of_volume(self, name: str) -> int:
        """Of a logical volume: it gets what is free in its group, and what its disks will add."""
        path = f"/dev/mapper/{read_word(f'{SYS_BLOCK}/{name}/dm/name')}"
        tools.require("lvs", "vgs", "pvs")
        (volume,) = _fields(tools.look("lvs", *_report(_OF_VOLUME), path))
        before = _size(name)
        if volume["LV_LAYOUT"] != "linear" or volume["LV_ATTR"][:1] != "-":
            self.obstacles.append(f"{path} is not a plain linear volume: grow it with lvextend")
            return before
        found = _fields(tools.look("vgs", *_report(_OF_GROUP), volume["VG_NAME"]))
        if any(int(each["VG_MISSING_PV_COUNT"]) for each in found):
            raise QgaError(f"a physical volume of {volume['VG_NAME']} is missing")
        free, extent = int(found[0]["VG_FREE_COUNT"]), int(found[0]["VG_EXTENT_SIZE"])
        free += sum([self._new_extents(each, extent) for each in found])
        if free <= 0:
            return before
        tools.require("lvextend")
        return self._add(
            Step(
                "logical-volume",
                path,
                "lvextend",
                before,
                before + free * extent,
                lambda: tools.change("lvextend", "--extents", "+100%FREE", path),
                lambda: _size(name),
            )
        )

    def _new_extents(self, volume: dict[str, str], extent: int) -> int:
        """How many extents a physical volume will have more."""
        path = volume["PV_NAME"]
        after = self._size_of(_name_of(path))
        had, start = int(volume["PV_PE_COUNT"]), int(volume["PE_START"])
        added = (after - start) // extent - had
        if added <= 0:
            return 0
        tools.require("pvresize")
        tools.look("pvresize", "--test", path)
        self._add(
            Step(
                "physical-volume",
                path,
                "pvresize",
                had * extent,
                (had + added) * extent,
                lambda: tools.change("pvresize", path),
                lambda: _size_of_extents(path),
            )
        )
        return added


def _report(fields: str) -> list[str]:
    return ["--noheadings", "--nameprefixes", "--units=b", "--nosuffix", "--options", fields]


def _fields(report: str) -> list[dict[str, str]]:
    """The rows of a report; LVM's warnings are mixed with them."""
    rows = [dict(_FIELD.findall(line)) for line in report.splitlines()]
    found = [row for row in rows if row]
    if not found:
        raise QgaError(f"LVM does not know what the volume is: {' '.join(report.split())}")
    return found


def _size_of_extents(path: str) -> int:
    """The bytes of a physical volume that its group can use."""
    (volume,) = _fields(tools.look("pvs", *_report("pv_pe_count,vg_extent_size"), path))
    return int(volume["PV_PE_COUNT"]) * int(volume["VG_EXTENT_SIZE"])


def _name_of(path: str) -> str:
    """The kernel's name of a device. Raises OSError if it is gone."""
    number = os.stat(path).st_rdev
    name = device_name((os.major(number), os.minor(number)))
    if name is None:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
    return name


def _by_hand(name: str, members: list[str]) -> str:
    tool = "mdadm --grow" if os.path.exists(f"{SYS_BLOCK}/{name}/md") else "the tool that made it"
    return f"{dev_path(name)} is made of {counted(len(members), 'device')}: grow it with {tool}"


def _mapped_as(name: str) -> str:
    """The UUID of a device of the device mapper, which begins with its kind; "" for others."""
    try:
        return read_word(f"{SYS_BLOCK}/{name}/dm/uuid")
    except FileNotFoundError:
        return ""


def _rescan(name: str) -> None:
    """Let the kernel look how large a SCSI or SATA disk is. Others tell by themselves."""
    try:
        fd = os.open(f"{SYS_BLOCK}/{name}/device/rescan", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, b"1")
    finally:
        os.close(fd)


def _size(name: str) -> int:
    """Of a device, in bytes."""
    path = f"{SYS_BLOCK}/{name}/size"
    return parse_number(read_word(path), path) * SECTOR
