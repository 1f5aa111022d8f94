"""Mounted filesystems, from /proc/self/mountinfo.

The table is read without accessing any path. A path may lead through a filesystem whose server is
gone, and then every access to it hangs. Such paths are accessed on a thread of their own, for no
longer than _PATIENCE.
"""

from __future__ import annotations

import os
import re
from _thread import allocate_lock, start_new_thread
from errno import EAGAIN, EOPNOTSUPP, ETIMEDOUT
from functools import lru_cache
from typing import Any, Callable, TypeVar

from qga.records import NamedTuple
from qga.wire.jsontext import decode_leniently

from ._sysfs import read_kept

FUSE = "fuseblk"
"""Filesystems on a block device that a program serves, such as ntfs-3g."""

# Lines of proc_pid_mountinfo(5). A guest has dozens of mounts, most of them without a device. The
# expression skips them by whole fields, which costs least.
_BEFORE_TYPE = rb"(?:(?!- )[^ \n]+ )*- "


def _line(device: bytes) -> re.Pattern[bytes]:
    return re.compile(
        rb"^[0-9]+ [0-9]+ " + device + rb"(?P<major>[0-9]+):(?P<minor>[0-9]+) [^ \n]+ "
        rb"(?P<path>[^ \n]+) " + _BEFORE_TYPE + rb"(?P<type>[^ \n]+) (?P<source>[^ \n]*) ",
        re.MULTILINE,
    )


_ON_DEVICE = _line(rb"(?!0:)")
_ON_DEVICE_OR_BTRFS = _line(rb"(?:(?!0:)|(?=.* - btrfs ))")
# Mounts without a device, of types that are not known to be served by the kernel alone.
_SERVED = re.compile(
    rb"^[0-9]+ [0-9]+ 0:[0-9]+ [^ \n]+ ([^ \n]+) "
    + _BEFORE_TYPE
    + rb"(?!(?:btrfs|cgroup2?|devtmpfs|overlay|proc|ramfs|rootfs|sysfs|tmpfs|zfs) )",
    re.MULTILINE,
)
_OCTAL = re.compile(rb"\\(?!000)([0-3][0-7]{2})")

_PATIENCE = 1.0  # seconds

_stuck: set[str] = set()  # paths with a thread that waits; there is at most one for each

T = TypeVar("T")


class Mount(NamedTuple):
    """A filesystem on a block device.

    device: its major and minor number.
    paths: its mount points, in the order of mounting.
    source: the source of the first mount, as given to mount(8).
    may_wait: whether an access may hang, because a server or program serves the filesystem, or one
        that the path leads through.
    """

    device: tuple[int, int]
    paths: list[str]
    type: str
    source: str
    may_wait: bool = False


def block_mounts() -> list[Mount]:
    """The mounted filesystems on block devices, in the order of mounting.

    Each filesystem is listed once, however often it is mounted. Those without a block device are
    left out: network, FUSE and virtual filesystems.
    """
    table = read_kept("/proc/self/mountinfo")
    # The device of a btrfs is looked up, so the result does not depend on the table alone.
    return parse(table) if b" - btrfs " in table else _parse_once(table)


def parse(table: bytes) -> list[Mount]:
    """The mounts of a table such as /proc/self/mountinfo."""
    served = [decode(path) for path in _SERVED.findall(table)]
    mounts: dict[tuple[int, int], Mount] = {}
    pattern = _ON_DEVICE_OR_BTRFS if b" - btrfs " in table else _ON_DEVICE
    for line in pattern.finditer(table):
        mount = _mount(line)
        if mount is not None:
            mounts.setdefault(mount.device, mount._replace(paths=[])).paths.extend(mount.paths)
            served += mount.paths if mount.type == FUSE else []
    return [
        mount._replace(may_wait=any(_leads_through(path, served) for path in mount.paths))
        for mount in mounts.values()
    ]


_parse_once = lru_cache(maxsize=1)(parse)


def open_mount(mount: Mount) -> int | None:
    """Open the first mount point that leads to the filesystem.

    Returns a descriptor, or None if all mount points are hidden under later mounts. Raises OSError,
    with EOPNOTSUPP for FUSE, which can be neither frozen nor trimmed, and may hang.
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
    path: str,
    ask: Callable[[str], T],
    forget: Callable[[T], object] = lambda answer: None,
    patience: float = _PATIENCE,
) -> T:
    """Call `ask` with a path on a thread, and return its result. Raises TimeoutError.

    forget: called with a result that comes too late.
    patience: seconds to wait.
    """
    too_late = TimeoutError(ETIMEDOUT, "it does not answer")
    if path in _stuck:
        raise too_late
    outcomes: list[Any] = []  # the first one counts: a result, an error or too_late
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

    try:
        start_new_thread(wait, ())
    except RuntimeError:
        raise OSError(EAGAIN, "cannot start a thread to access it") from None
    if not answered.acquire(timeout=patience):
        _stuck.add(path)
        outcomes.append(too_late)
        if outcomes[0] is not too_late:
            _stuck.discard(path)
    if isinstance(outcomes[0], OSError):
        raise outcomes[0]
    answer: T = outcomes[0]
    return answer


def size_of(mount: Mount) -> os.statvfs_result | None:
    """The size and usage of a filesystem, or None if it does not answer in time."""
    path = mount.paths[0]
    try:
        return ask_in_time(path, os.statvfs) if mount.may_wait else os.statvfs(path)
    except OSError:
        return None


def as_reported(path: str) -> str:
    """A path as replies have it: with U+FFFD for what is not UTF-8 or no character."""
    return decode_leniently(os.fsencode(path))


def is_read_only(mount: Mount) -> bool:
    size = size_of(mount)
    return size is not None and bool(size.f_flag & os.ST_RDONLY)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def _leads_through(path: str, places: list[str]) -> bool:
    return any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)


def _mount(line: re.Match[bytes]) -> Mount | None:
    fstype, source = decode(line["type"]), decode(line["source"])
    device = int(line["major"]), int(line["minor"])
    if device[0] == 0:
        # btrfs has anonymous device numbers. The device that it was mounted from is used instead.
        if not source.startswith("/dev/"):
            return None
        try:
            number = os.stat(source).st_rdev
        except OSError:
            return None
        device = os.major(number), os.minor(number)
    return Mount(device, [decode(line["path"])], fstype, source)


def decode(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))
