"""Mounted filesystems, from /proc/self/mountinfo: no path is touched, so nothing can hang."""

from __future__ import annotations

import os
import re
from errno import EOPNOTSUPP
from typing import NamedTuple

from ._sysfs import read_bytes

FUSE = "fuseblk"
"""The type of filesystems that a program serves from a block device, such as ntfs-3g's."""

_OCTAL = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A filesystem on a block device.

    device: its major and minor number.
    paths: where it is mounted, in the order of mounting.
    source: what was mounted first, as mount(8) was given it.
    """

    device: tuple[int, int]
    paths: list[str]
    type: str
    source: str


def block_mounts() -> list[Mount]:
    """The mounted filesystems on block devices, in the order of mounting.

    Each is one filesystem, to be frozen, trimmed and reported once, however often it is
    mounted. What has no block device is left out: network, FUSE and virtual filesystems.
    """
    # A path may have a carriage return in it, which is not escaped: no splitlines here.
    lines = read_bytes("/proc/self/mountinfo").split(b"\n")[:-1]
    mounts: dict[tuple[int, int], Mount] = {}
    for line in lines:
        mount = _parse(line)
        if mount is not None:
            mounts.setdefault(mount.device, mount._replace(paths=[])).paths.extend(mount.paths)
    return list(mounts.values())


def open_mount(mount: Mount) -> int | None:
    """A descriptor on the filesystem, through the first of its mount points that leads to it.

    None where all are hidden under later mounts. Raises OSError when none can be opened, and
    EOPNOTSUPP where a program serves it: it can be neither frozen nor trimmed, but may hang.
    """
    if mount.type == FUSE:
        raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP))
    failure: OSError | None = None
    for path in mount.paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            failure = failure or error
            continue
        number = os.fstat(fd).st_dev
        if (os.major(number), os.minor(number)) == mount.device or mount.type == "btrfs":
            return fd
        os.close(fd)
    if failure is not None:
        raise failure
    return None


def _parse(line: bytes) -> Mount | None:
    """A line as proc_pid_mountinfo(5) has it; None for what has no block device."""
    head, _, tail = line.partition(b" - ")
    _id, _parent, device, _root, path = head.split(b" ")[:5]
    fstype, source = (_decode(field) for field in tail.split(b" ")[:2])
    major, minor = (int(number) for number in device.split(b":"))
    if major == 0:
        # btrfs has anonymous device numbers; the device it was mounted from stands for it.
        if fstype != "btrfs" or not source.startswith("/dev/"):
            return None
        try:
            number = os.stat(source).st_rdev
        except OSError:
            return None
        major, minor = os.major(number), os.minor(number)
    return Mount((major, minor), [_decode(path)], fstype, source)


def _decode(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))
