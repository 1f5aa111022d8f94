"""Events for filesystems that are mounted, unmounted, or become read-only.

The kernel signals each change of the mount table with POLLPRI (proc_pid_mountinfo(5)), except if a
filesystem turns read-only after an error, which only the kernel's log shows. Filesystems without a
device or server, such as cgroup2 and tmpfs, are ignored.
"""

from __future__ import annotations

import os
import re
import select
from typing import TYPE_CHECKING

from qga.records import NamedTuple

from ._mounts import block_mounts, decode, size_of
from ._sysfs import read_kept, understood

if TYPE_CHECKING:
    from typing import Any, Callable

    from qga.loop import Loop, Timer

    Tell = Callable[..., None]

_TABLE = "/proc/self/mountinfo"
# Filesystems without a device of their own whose files survive a reboot.
_SERVED = (
    *("9p", "afs", "btrfs", "ceph", "cifs", "fuse.", "gfs2", "glusterfs", "lustre", "nfs"),
    *("ocfs2", "smb", "virtiofs", "zfs"),
)
_FAILED = re.compile(rb"^EXT4-fs \(([^)]+)\): Remounting filesystem read-only")
# emergency_ro: ext4 since Linux 6.16, after an error.
_READ_ONLY = ("ro", "emergency_ro")

_AFTER_MESSAGE = 0.5
"""Seconds: ext4 logs it before it happens, and writing to a slow console takes time in between."""

_ROOM = 5
"""Percent by which a filesystem must fall below the threshold before it counts as below."""


class MountPoint(NamedTuple):
    """A line of the table. source: as given to mount(8). device: its major and minor number."""

    mountpoint: str
    type: str
    source: str
    read_only: bool
    device: str


class Mounts:
    """Calls `tell` with filesystem-mounted, -unmounted, -read-only and -writable.

    Raises OSError.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._later: Timer | None = None
        self._failed: set[str] = set()  # devices
        self._table = os.open(_TABLE, os.O_RDONLY)
        self._known = parse(read_kept(_TABLE))

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        loop.watch(self._table, lambda _events: self.look(), select.EPOLLPRI)

    def close(self) -> None:
        if self._later is not None:
            self._later.cancel()
        self._loop.unwatch(self._table)
        os.close(self._table)

    def look(self) -> None:
        """Report what has changed since the last look."""
        known, found = self._known, parse(read_kept(_TABLE))
        self._failed &= {mount.device for mount in found.values()}
        self._known = {
            number: mount._replace(read_only=mount.read_only or mount.device in self._failed)
            for number, mount in found.items()
        }
        for name, members in changes(known, self._known):
            self._tell(name, **members)

    def on_kernel_line(self, text: bytes) -> None:
        """Check a line of the kernel's log for read-only ext4, XFS, btrfs and f2fs."""
        if b"read-only" in text or b"readonly" in text or b"hutting down filesystem" in text:
            self._note_failure(text)
            if self._later is not None:
                self._later.cancel()
            self._later = self._loop.call_later(_AFTER_MESSAGE, self.look)

    def _note_failure(self, text: bytes) -> None:
        """Remember an ext4 that has stopped writing; few kernels show that in the mount table."""
        failed = _FAILED.search(text)
        devices = {mount.device for mount in self._known.values()} if failed else set()
        for device in devices:
            if failed and _name_of(device) == decode(failed[1]):
                self._failed.add(device)


def _name_of(device: str) -> str:
    """The kernel's name, such as vda1; "" for one that has none."""
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{device}"))
    except OSError:
        return ""


def parse(table: bytes) -> dict[int, MountPoint]:
    """The mounts of a table such as /proc/self/mountinfo by their IDs."""
    return dict(filter(None, understood(_mount_point, table.split(b"\n"))))


def _mount_point(line: bytes) -> tuple[int, MountPoint] | None:
    """The ID and the mount; None for one that is served by the kernel alone. Raises ValueError."""
    before, _, after = line.partition(b" - ")
    number, _parent, device, _root, path, options, *_ = before.split(b" ")
    kind, source, more = after.split(b" ", 2)
    if device.startswith(b"0:") and not decode(kind).startswith(_SERVED):
        return None
    words = decode(options).split(",") + decode(more).split(",")
    read_only = any(word in words for word in _READ_ONLY)
    return int(number), MountPoint(
        decode(path), decode(kind), decode(source), read_only, decode(device)
    )


def changes(
    before: dict[int, MountPoint], after: dict[int, MountPoint]
) -> list[tuple[str, dict[str, Any]]]:
    """The events between two mount tables. The kernel may reuse an ID for another mount."""
    events = []
    for number, old in before.items():
        if after.get(number, old._replace(source=""))[:3] != old[:3]:
            events.append(("filesystem-unmounted", _described(old)))
    for number, new in after.items():
        old_one = before.get(number)
        if old_one is None or old_one[:3] != new[:3]:
            events.append(("filesystem-mounted", {**_described(new), "read-only": new.read_only}))
        elif old_one.read_only != new.read_only:
            word = "read-only" if new.read_only else "writable"
            events.append((f"filesystem-{word}", _described(new)))
    return events


def _described(mount: MountPoint) -> dict[str, Any]:
    return {"mountpoint": mount.mountpoint, "type": mount.type, "device": mount.source}


class Usage:
    """Calls `tell` with usage-above and usage-below when a filesystem crosses `percent`.

    Linux has no event for that, so a worker thread checks every `interval` seconds.
    """

    def __init__(
        self, tell: Tell, percent: int, interval: int, submit: Callable[..., object]
    ) -> None:
        self._tell = tell
        self._percent = percent
        self._interval = interval
        self._submit = submit
        self._above: set[str] = set()

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        self._timer = loop.call_later(0, self._look)

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._look)
        self._submit(used_percents, self._compare)

    def _compare(self, used: Any, _error: BaseException | None) -> None:
        for path, percent in (used or {}).items():
            was_above = path in self._above
            if percent >= self._percent and not was_above:
                self._above.add(path)
                self._tell("usage-above", mountpoint=path, **{"used-percent": percent})
            elif percent < self._percent - _ROOM and was_above:
                self._above.discard(path)
                self._tell("usage-below", mountpoint=path, **{"used-percent": percent})
        self._above &= set(used or self._above)


def used_percents() -> dict[str, float]:
    """The usage of the filesystems in percent, as in df(1), by mount point."""
    found = {}
    for mount in block_mounts():
        size = size_of(mount)
        if size is None:
            continue
        used = size.f_blocks - size.f_bfree
        if used + size.f_bavail:
            found[mount.paths[0]] = round(100 * used / (used + size.f_bavail), 1)
    return found
