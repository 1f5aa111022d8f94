"""Mounted filesystems, from /proc/self/mountinfo.

The table is read without touching any path. Where a path must be touched, the way may lead
through a filesystem that somebody else serves, and who may be gone: then whoever takes it waits
for ever. So that is done on a thread of its own, and waited for no longer than _PATIENCE.
"""

from __future__ import annotations

import os
import re
from _thread import allocate_lock, start_new_thread
from errno import EOPNOTSUPP, ETIMEDOUT
from typing import Any, Callable, NamedTuple, TypeVar

from ._sysfs import read_bytes

FUSE = "fuseblk"
"""The type of filesystems that a program serves from a block device, such as ntfs-3g's."""

# Filesystems without a block device that the kernel serves by itself.
_WITHOUT_SERVER = {"btrfs", "devtmpfs", "overlay", "ramfs", "rootfs", "tmpfs", "zfs"}

_OCTAL = re.compile(rb"\\([0-7]{3})")

_PATIENCE = 1.0  # seconds

_stuck: set[str] = set()  # paths that a thread waits at already: each costs one, so once

T = TypeVar("T")


class Mount(NamedTuple):
    """A filesystem on a block device.

    device: its major and minor number.
    paths: where it is mounted, in the order of mounting.
    source: what was mounted first, as mount(8) was given it.
    may_wait: whether somebody else serves it, or a filesystem on the way to it.
    """

    device: tuple[int, int]
    paths: list[str]
    type: str
    source: str
    may_wait: bool = False


def block_mounts() -> list[Mount]:
    """The mounted filesystems on block devices, in the order of mounting.

    Each is one filesystem, to be frozen, trimmed and reported once, however often it is
    mounted. What has no block device is left out: network, FUSE and virtual filesystems.
    """
    # A path may have a carriage return in it, which is not escaped: no splitlines here.
    lines = read_bytes("/proc/self/mountinfo").split(b"\n")[:-1]
    mounts: dict[tuple[int, int], Mount] = {}
    served = []
    for mount in map(_parse, lines):
        if mount.type == FUSE or (not mount.device[0] and mount.type not in _WITHOUT_SERVER):
            served += mount.paths
        device = _block_device(mount)
        if device is not None:
            known = mounts.setdefault(device, mount._replace(device=device, paths=[]))
            known.paths.extend(mount.paths)
    if not served:
        return list(mounts.values())
    return [
        mount._replace(may_wait=any(_leads_through(path, served) for path in mount.paths))
        for mount in mounts.values()
    ]


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
            fd = ask_in_time(path, _open, os.close) if mount.may_wait else _open(path)
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


def ask_in_time(
    path: str, ask: Callable[[str], T], forget: Callable[[T], object] = lambda answer: None
) -> T:
    """What `ask` has to say of a path; TimeoutError when that takes too long.

    forget: told of an answer that comes too late.
    """
    too_late = TimeoutError(ETIMEDOUT, "it does not answer")
    if path in _stuck:
        raise too_late
    outcomes: list[Any] = []  # the first one counts
    answered = allocate_lock()
    answered.acquire()

    def wait() -> None:
        try:
            answer: Any = ask(path)
        except OSError as error:
            answer = error
        outcomes.append(answer)
        answered.release()
        if outcomes[0] is too_late:
            _stuck.discard(path)
            if not isinstance(answer, OSError):
                forget(answer)

    start_new_thread(wait, ())
    if not answered.acquire(timeout=_PATIENCE):
        _stuck.add(path)
        outcomes.append(too_late)
        if outcomes[0] is not too_late:
            _stuck.discard(path)
    if isinstance(outcomes[0], OSError):
        raise outcomes[0]
    answer: T = outcomes[0]
    return answer


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def _leads_through(path: str, places: list[str]) -> bool:
    return any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)


def _parse(line: bytes) -> Mount:
    """A line as proc_pid_mountinfo(5) has it."""
    head, _, tail = line.partition(b" - ")
    _id, _parent, device, _root, path = head.split(b" ")[:5]
    fstype, source = (_decode(field) for field in tail.split(b" ")[:2])
    major, minor = (int(number) for number in device.split(b":"))
    return Mount((major, minor), [_decode(path)], fstype, source)


def _block_device(mount: Mount) -> tuple[int, int] | None:
    """The number of the device that a filesystem is on; None when it is on none.

    btrfs has anonymous device numbers; the device it was mounted from stands for it.
    """
    if mount.device[0]:
        return mount.device
    if mount.type != "btrfs" or not mount.source.startswith("/dev/"):
        return None
    try:
        number = os.stat(mount.source).st_rdev
    except OSError:
        return None
    return os.major(number), os.minor(number)


def _decode(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))
