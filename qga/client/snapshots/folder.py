"""The directory of a snapshot: created for it, and removed if it fails.

What must stay true: files are created in and removed from this directory only, even if another user
who owns its parent directory replaces it meanwhile.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from qga.client.conversion import plain
from qga.client.errors import SnapshotFailed
from qga.client.snapshots.machine import Disk, Target
from qga.client.snapshots.record import Snapshot
from qga.wording import counted

RECORD = "snapshot.json"

# What QEMU calls a disk may be anything. A hyphen in front is an option of a program to which
# somebody gives the file, a dot hides it.
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]|^[.-]")
LONGEST_NAME = 200

# QEMU may run as another user, who has to reach its files by their names but not to list them.
MODE = 0o711


class Folder:
    """A new directory. As a context it removes the directory after an error, unless `kept`."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.kept = False
        self._fd = -1
        self._names: list[str] = []

    def __enter__(self) -> Folder:
        try:
            os.mkdir(self.path, MODE)
        except FileExistsError:
            raise SnapshotFailed(
                f"a new directory is required, and this one exists: {self.path}"
            ) from None
        except OSError as error:
            raise SnapshotFailed(f"cannot create {self.path}: {error.strerror}") from None
        try:
            self._open()
        except BaseException:
            self._remove()
            raise
        return self

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            found = os.listdir(self._fd)
        except OSError as error:
            raise SnapshotFailed(f"cannot read {self.path}: {error.strerror}") from None
        if found:
            raise SnapshotFailed(f"another program has replaced {self.path}")

    def __exit__(self, *raised: object) -> None:
        if raised[1] is not None and not self.kept:
            self._remove()
        else:
            os.close(self._fd)

    def _remove(self) -> None:
        for name in self._names:
            with suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
        with suppress(OSError):
            os.rmdir(self.path)
        with suppress(OSError):
            os.close(self._fd)

    def targets(self, disks: Sequence[Disk], form: str) -> list[Target]:
        """A file for each disk; none of them is there yet."""
        self._names = [f"{name}.{form}" for name in distinct(disk.name for disk in disks)]
        paths = [os.path.join(self.path, name) for name in self._names]
        return [Target(disk, path, form, self._fd) for disk, path in zip(disks, paths)]

    def require_space(self, disks: Sequence[Disk]) -> None:
        """SnapshotFailed if what is allocated to the disks does not fit.

        A copy that runs out of space in the middle may hold up the guest: what it writes is copied
        first.
        """
        try:
            state = os.fstatvfs(self._fd)
        except OSError as error:
            raise SnapshotFailed(
                f"cannot find out the free space of {self.path}: {error.strerror}"
            ) from None
        free, needed = state.f_bavail * state.f_frsize, sum(disk.used for disk in disks)
        if needed > free:
            raise SnapshotFailed(
                f"not enough space: the disks may need {counted(needed, 'byte')}, and {self.path} "
                f"has {free} free"
            )

    def write(self, snapshot: Snapshot) -> None:
        """Leave the record; a directory that has one is complete."""
        unfinished = f".{RECORD}"
        self._names += [unfinished, RECORD]
        text = json.dumps(plain(snapshot), indent=2)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(unfinished, flags, 0o666, dir_fd=self._fd)
            with open(fd, "w", encoding="ascii") as file:
                file.write(f"{text}\n")
                file.flush()
                os.fsync(fd)
            os.rename(unfinished, RECORD, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            os.fsync(self._fd)
        except OSError as error:
            raise SnapshotFailed(f"cannot write {self.path}/{RECORD}: {error.strerror}") from None


def create(target: Target) -> int:
    """Create the file, and return a descriptor. Raises SnapshotFailed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = -1
    try:
        fd = os.open(os.path.basename(target.path), flags, 0o600, dir_fd=target.folder)
        if target.format == "raw":
            os.ftruncate(fd, target.disk.size)
        return fd
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise SnapshotFailed(f"cannot create {target.path}: {error.strerror}") from None


def reopen(target: Target, fd: int) -> int:
    """Another descriptor of the open file, for `sync`. Raises SnapshotFailed.

    The kernel reports lost bytes once to each open file, and to that of QEMU perhaps first.
    """
    try:
        # Its name may be that of another file by now.
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SnapshotFailed(f"cannot open {target.path}: {error.strerror}") from None


def sync(target: Target, fd: int) -> None:
    """Wait until the file is on the disk. Raises SnapshotFailed."""
    try:
        os.fsync(fd)
    except OSError as error:
        raise SnapshotFailed(f"cannot write {target.path}: {error.strerror}") from None


def sync_by_name(target: Target) -> None:
    """The same, of a file that another program has created. Raises SnapshotFailed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(os.path.basename(target.path), flags, dir_fd=target.folder)
    except PermissionError:
        os.sync()
        return
    except OSError as error:
        raise SnapshotFailed(f"cannot open {target.path}: {error.strerror}") from None
    try:
        sync(target, fd)
    finally:
        os.close(fd)


def distinct(names: Iterable[str]) -> Iterator[str]:
    """A name for a file for each of these, which may be equal, or become equal."""
    taken: set[str] = set()
    uses: Counter[str] = Counter()
    for name in names:
        safe = found = UNSAFE.sub("_", name)[:LONGEST_NAME] or "disk"
        while found in taken:
            uses[safe] += 1
            found = f"{safe}_{uses[safe]}"
        taken.add(found)
        yield found
