"""The guest's mounted filesystems: sizes, disks, and trimming."""

from __future__ import annotations

import os
import struct

from qga import CommandGroup, NotRequired, UInt64, command, until_given_up
from qga.records import TypedDict

from ._block import GuestDiskAddress, addresses_behind, device_name
from ._ioctl import ioctl_number
from ._mounts import Mount, block_mounts, open_mount, size_of

GuestFilesystemInfo = TypedDict(
    "GuestFilesystemInfo",
    {
        "name": str,
        "mountpoint": str,
        "type": str,
        "used-bytes": NotRequired[UInt64],
        "total-bytes": NotRequired[UInt64],
        "total-bytes-privileged": NotRequired[UInt64],
        "disk": list[GuestDiskAddress],
    },
)


class GuestFilesystemTrimResult(TypedDict):
    path: str
    trimmed: NotRequired[int]
    minimum: NotRequired[int]
    error: NotRequired[str]


class GuestFilesystemTrimResponse(TypedDict):
    paths: list[GuestFilesystemTrimResult]


# <linux/fs.h>
# struct fstrim_range: start, len, minlen. They are unsigned, but int64 in requests and replies.
_TRIM_RANGE = struct.Struct("=3q")
_FITRIM = ioctl_number("both", "X", 121, _TRIM_RANGE.size)
_WHOLE = -1  # the highest length


class Filesystems(CommandGroup):
    """Filesystems on block devices."""

    @command(access="audit", blocking=True)
    def guest_get_fsinfo(self, *, may_wait: bool) -> list[GuestFilesystemInfo]:
        """List the mounted filesystems with their sizes and disks, the last mounted first.

        total-bytes is the size that ordinary users can fill, total-bytes-privileged that for root.
        """
        mounts = block_mounts()
        if not may_wait and any(mount.may_wait for mount in mounts):
            raise BlockingIOError
        return [_filesystem(mount) for mount in until_given_up(reversed(mounts))]

    @command(access="filesystem", blocking=True)
    def guest_fstrim(self, minimum: int = 0) -> GuestFilesystemTrimResponse:
        """Discard unused blocks of the filesystems, so that the host can reuse them.

        minimum: in bytes; shorter runs of free blocks are ignored.
        Returns for each filesystem how many bytes were trimmed, or the error.
        """
        mounts = reversed(block_mounts())
        return {"paths": [_trim(mount, minimum) for mount in until_given_up(mounts)]}


def _filesystem(mount: Mount) -> GuestFilesystemInfo:
    name = device_name(mount.device)
    filesystem: GuestFilesystemInfo = {
        "name": name or "{}:{}".format(*mount.device),
        "mountpoint": mount.paths[0],
        "type": mount.type,
        "disk": addresses_behind(name) if name else [],
    }
    size = size_of(mount)
    if size is not None:
        used = size.f_blocks - size.f_bfree
        filesystem["used-bytes"] = used * size.f_frsize
        filesystem["total-bytes"] = (used + size.f_bavail) * size.f_frsize
        filesystem["total-bytes-privileged"] = size.f_blocks * size.f_frsize
    return filesystem


def _trim(mount: Mount, minimum: int) -> GuestFilesystemTrimResult:
    from fcntl import ioctl

    result: GuestFilesystemTrimResult = {"path": mount.paths[0]}
    try:
        fd = open_mount(mount)
        if fd is None:
            result["error"] = "it is hidden under another mount"
            return result
        try:
            done = ioctl(fd, _FITRIM, _TRIM_RANGE.pack(0, _WHOLE, minimum))
        finally:
            os.close(fd)
    except OSError as error:
        result["error"] = _why_not_trimmed(error)
        return result
    _start, result["trimmed"], result["minimum"] = _TRIM_RANGE.unpack(done)
    return result


def _why_not_trimmed(error: OSError) -> str:
    from errno import ENOTTY, EOPNOTSUPP

    if error.errno in (ENOTTY, EOPNOTSUPP):
        return "trim not supported"
    return f"failed to trim: {error.strerror}"
