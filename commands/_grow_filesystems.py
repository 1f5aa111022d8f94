"""Mounted filesystems that can be grown: where they are, how large, and by which tool."""

from __future__ import annotations

import os
import struct
from fcntl import ioctl

from qga import QgaError

from . import _grow_tools as tools
from ._block import dev_path, device_name
from ._ioctl import ioctl_number
from ._mounts import Mount, block_mounts, decode, open_mount
from ._sysfs import read_bytes, read_word, understood

# <xfs/xfs_fs.h>, struct xfs_fsop_geom_v1: the block size, seven words, the number of blocks
_XFS_GEOMETRY = struct.Struct("=I28xQ72x")
_XFS_IOC_FSGEOMETRY_V1 = ioctl_number("read", "X", 100, _XFS_GEOMETRY.size)

# <linux/btrfs.h>
# struct btrfs_ioctl_fs_info_args: max_id num_devices fsid
_BTRFS_FS_INFO = struct.Struct("=2Q16s992x")
_BTRFS_IOC_FS_INFO = ioctl_number("read", "\x94", 31, _BTRFS_FS_INFO.size)
# struct btrfs_ioctl_dev_info_args: devid uuid bytes_used total_bytes
_BTRFS_DEV_INFO = struct.Struct("=Q16s2Q4056x")
_BTRFS_IOC_DEV_INFO = ioctl_number("both", "\x94", 30, _BTRFS_DEV_INFO.size)

# The superblock of ext4 (Documentation/filesystems/ext4/super.rst)
_EXT4_PLACE, _EXT4_SIZE = 1024, 1024
_EXT4_HAS_ERRORS = 2  # s_state
_EXT4_64BIT = 0x80  # s_feature_incompat
_EXT4_LARGEST_LOG = 6  # s_log_block_size: blocks of 64 KiB

_BTRFS_LEAST = 256 << 20
"""Bytes: the kernel gives a btrfs no smaller size, even if it was smaller before."""


class Filesystem:
    """A filesystem that is mounted at `mountpoint`, and lies on the device `name` alone.

    tool: the program that grows it.
    """

    type = ""
    tool = ""

    def __init__(self, mountpoint: str, name: str, fd: int) -> None:
        self.mountpoint = mountpoint
        self.name = name
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)

    @property
    def size(self) -> int:
        """In bytes."""
        raise NotImplementedError

    def check(self, after: int) -> None:
        """Raise QgaError if it cannot be grown to `after` bytes."""
        tools.require(self.tool)

    def grow(self) -> None:
        """Let it fill its device. Raises QgaError."""
        raise NotImplementedError


class Ext4(Filesystem):
    type = "ext4"
    tool = "resize2fs"

    @property
    def size(self) -> int:
        superblock = self._superblock()
        low, high = _number(superblock, 0x4, 4), _number(superblock, 0x150, 4)
        if not self._has_64bit(superblock):
            high = 0
        return (high << 32 | low) * self._block_size(superblock)

    def check(self, after: int) -> None:
        super().check(after)
        superblock = self._superblock()
        if _number(superblock, 0x3A, 2) & _EXT4_HAS_ERRORS:
            raise QgaError(f"the filesystem at {self.mountpoint} has errors: run e2fsck first")
        most = 1 << (48 if self._has_64bit(superblock) else 32)
        if after // self._block_size(superblock) > most:
            raise QgaError(
                f"the filesystem at {self.mountpoint} would have too many blocks: it lacks the "
                "feature 64bit"
            )

    def grow(self) -> None:
        tools.change(self.tool, dev_path(self.name))

    def _superblock(self) -> bytes:
        fd = os.open(dev_path(self.name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, _EXT4_SIZE, _EXT4_PLACE)
        finally:
            os.close(fd)

    def _block_size(self, superblock: bytes) -> int:
        log = _number(superblock, 0x18, 4)
        if log > _EXT4_LARGEST_LOG:  # a user may change the image of a disk that is mounted
            raise QgaError(f"the superblock of the filesystem at {self.mountpoint} is damaged")
        return 1024 << log

    def _has_64bit(self, superblock: bytes) -> bool:
        return bool(_number(superblock, 0x60, 4) & _EXT4_64BIT)


class Xfs(Filesystem):
    type = "xfs"
    tool = "xfs_growfs"

    @property
    def size(self) -> int:
        found = ioctl(self.fd, _XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY.size))
        block_size, blocks = _XFS_GEOMETRY.unpack(found)
        return int(block_size * blocks)

    def check(self, after: int) -> None:
        super().check(after)
        tools.look(self.tool, "-n", self.mountpoint)

    def grow(self) -> None:
        tools.change(self.tool, "-d", self.mountpoint)


class Btrfs(Filesystem):
    type = "btrfs"
    tool = "btrfs"

    def __init__(self, mountpoint: str, name: str, fd: int) -> None:
        super().__init__(mountpoint, name, fd)
        found = bytearray(_BTRFS_FS_INFO.size)
        ioctl(fd, _BTRFS_IOC_FS_INFO, found)
        # With one device, the highest number is its number. It is not always 1.
        self._device_id, devices, fsid = _BTRFS_FS_INFO.unpack(found)
        self._state = f"/sys/fs/btrfs/{_as_uuid(fsid.hex())}"
        found_there = sorted(os.listdir(f"{self._state}/devices"))
        self.name = found_there[0]
        if devices != 1:
            names = ", ".join(map(dev_path, found_there))
            raise QgaError(
                f"the filesystem at {mountpoint} lies on several devices ({names}): grow it with "
                "`btrfs filesystem resize` in the guest"
            )

    @property
    def size(self) -> int:
        found = bytearray(_BTRFS_DEV_INFO.size)
        _BTRFS_DEV_INFO.pack_into(found, 0, self._device_id, bytes(16), 0, 0)
        ioctl(self.fd, _BTRFS_IOC_DEV_INFO, found)
        return int(_BTRFS_DEV_INFO.unpack(found)[3])

    def check(self, after: int) -> None:
        super().check(after)
        if after < _BTRFS_LEAST:
            reason = "is btrfs, which can only grow to 256 MiB or more"
            raise QgaError(f"the filesystem at {self.mountpoint} {reason}")
        try:
            under_way = read_word(f"{self._state}/exclusive_operation")
        except FileNotFoundError:  # before Linux 5.10
            return
        if under_way != "none":
            raise QgaError(f"the filesystem at {self.mountpoint} is busy: {under_way}")

    def grow(self) -> None:
        tools.change(self.tool, "filesystem", "resize", f"{self._device_id}:max", self.mountpoint)


_KINDS: dict[str, type[Filesystem]] = {kind.type: kind for kind in (Ext4, Xfs, Btrfs)}


def open_filesystem(mountpoint: str) -> tuple[Filesystem, Mount]:
    """The filesystem that is mounted at a path, to be closed. Raises QgaError if it cannot grow."""
    path = mountpoint.rstrip("/") or mountpoint[:1]
    kind = _kind_at(path)
    mounts = [mount for mount in block_mounts() if path in mount.paths]
    name = device_name(mounts[-1].device) if mounts else None
    if name is None:
        raise QgaError(f"the filesystem at {path} lies on no block device of this guest")
    mount = mounts[-1]
    try:
        fd = open_mount(mount._replace(paths=[path]))
    except OSError as error:
        raise QgaError(f"cannot open {path}: {error.strerror}") from error
    if fd is None:
        raise QgaError(f"the filesystem at {path} is hidden under another mount")
    try:
        return kind(path, name, fd), mount
    except OSError as error:
        os.close(fd)
        raise QgaError(f"cannot examine the filesystem at {path}: {error.strerror}") from error
    except QgaError:
        os.close(fd)
        raise


def _kind_at(path: str) -> type[Filesystem]:
    """How to grow what is mounted at a path. Raises QgaError."""
    found = _last_mounted(path)
    if found is None:
        raise QgaError(f"'{path}' is not a mount point")
    fstype, read_only = found
    if fstype not in _KINDS:
        known = ", ".join(_KINDS)
        raise QgaError(f"the filesystem at {path} is {fstype}, which cannot be grown; {known} can")
    if read_only:
        raise QgaError(f"the filesystem at {path} is mounted read-only")
    return _KINDS[fstype]


def _last_mounted(path: str) -> tuple[str, bool] | None:
    """The type of the filesystem that was mounted last at a path, and whether it is read-only."""
    found = None
    lines = read_bytes("/proc/self/mountinfo").split(b"\n")
    for place, fstype, read_only in understood(_mounted, lines):
        if place == path:
            found = fstype, read_only
    return found


def _mounted(line: bytes) -> tuple[str, str, bool]:
    """The mount point, its type, and whether it is read-only. Raises ValueError."""
    before, _, after = line.partition(b" - ")
    _, _, _, _, place, options, *_ = before.split(b" ")
    fstype, _, *rest = after.split(b" ")
    all_options = [*options.split(b","), *b",".join(rest).split(b",")]
    return decode(place), decode(fstype), b"ro" in all_options


def _number(superblock: bytes, place: int, size: int) -> int:
    return int.from_bytes(superblock[place : place + size], "little")


def _as_uuid(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
