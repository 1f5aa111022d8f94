"""The host's side of a copy.

What must stay true: whatever names a guest sends, only files in the directory that the user named
are written. They are reached through a descriptor of that directory, and no link is followed
(`Beneath`). Files are created under an unused name; an existing partial file is continued only if
it belongs to this user. Permissions are set only on what the copy created, never set-user-ID.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import select
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from errno import ENOSPC, ENXIO
from typing import TypeVar

from qga.client.copies.beneath import Beneath
from qga.client.copies.trees import (
    OTHERS_WRITE,
    PERMISSIONS,
    Chunks,
    Entry,
    Finished,
    Piece,
    Place,
    in_the_way,
    is_planted,
    join,
    kind_of,
    split,
    temporary_place,
)
from qga.client.errors import CopyError

T = TypeVar("T")

CHUNK = 1024 * 1024

# Seconds between two ticks while nobody reads from the FIFO that is written to.
TICK = 0.1

READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
WRITING = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalFiles:
    """Files of this machine, as a side of a copy. Long reads call `tick` now and then."""

    can_compare = True
    can_rename = True
    label = ""

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self.tick = tick
        self._tops: dict[str, Beneath] = {}
        self._umask = umask()

    def close(self) -> None:
        while self._tops:
            self._tops.popitem()[1].close()

    def lost(self, as_target: bool) -> str:
        return ""

    def find(self, path: str) -> Entry | None:
        try:
            return entry("", os.stat(path))
        except FileNotFoundError:
            return None

    def below(self, path: str) -> tuple[list[Entry], list[str]]:
        entries: list[Entry] = []
        complaints: list[str] = []
        waiting = [""]
        while waiting:
            name = waiting.pop()
            try:
                inside = self._listed(path, name)
            except OSError as error:
                complaints.append(f"{join(path, name)}: {error.strerror}")
                continue
            entries += inside
            waiting += [each.name for each in inside if each.is_folder]
        entries.sort(key=lambda each: (not each.is_folder, each.name))
        return entries, complaints

    def chunks(self, place: Place, offset: int, size: int) -> Chunks:
        with self._reading(place) as fd:
            os.lseek(fd, offset, os.SEEK_SET)
            rest = size - offset
            while rest > 0:
                chunk = os.read(fd, min(CHUNK, rest))
                if not chunk:
                    return
                rest -= len(chunk)
                yield chunk

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        return [self._checksum(piece) for piece in pieces]

    def look(self, places: Sequence[Place]) -> list[Entry | None]:
        return [self._look(place) for place in places]

    def follow(self, place: Place) -> tuple[Place, Entry]:
        with self._parent(place) as (folder, name):
            check_owner(folder, name)
        try:
            fd = os.open(place.path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            raise CopyError("is a symbolic link to a missing file") from None
        try:
            status = os.fstat(fd)
            real = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        found = entry("", status)
        if not found.is_file:
            return place, found  # a pipe, such as /dev/stdout, has no other path
        if not os.path.exists(real) or not os.path.samestat(os.lstat(real), status):
            raise CopyError("is a symbolic link to a file that was removed")
        return split(real), found

    def make_folders(self, places: Sequence[Place]) -> list[str]:
        return each_of(self._make_folder, places)

    def create(
        self, places: Sequence[Place], permissions: Sequence[int | None], exactly: bool
    ) -> list[str]:
        return each_of(self._create, places)

    def take_up(self, place: Place) -> int | None:
        found = self._look(place)
        if found is None:
            return None
        if not found.is_file:
            raise CopyError(f"is a {kind_of(found.mode)}")
        with self._writing(place) as fd:
            return os.fstat(fd).st_size

    def write(
        self, place: Place, offset: int, size: int, chunks: Iterator[bytes], keep: bool = True
    ) -> None:
        with self._writing(place) as fd:
            os.ftruncate(fd, offset)
            check_room(fd, size - offset)
            os.lseek(fd, offset, os.SEEK_SET)
            self._write_all(fd, chunks)

    def write_through(self, place: Place, kind: int, chunks: Iterator[bytes]) -> None:
        with self._open_special(place, kind) as fd:
            self._write_all(fd, chunks)

    def finish(self, files: Sequence[Finished], exactly: bool) -> list[str]:
        return each_of(lambda file: self._finish(file, exactly), files)

    def make_links(self, links: Sequence[tuple[str, Place]]) -> list[str]:
        return each_of(lambda link: self._make_link(*link), links)

    def set_permissions(self, folders: Sequence[tuple[int, Place]], exactly: bool) -> list[str]:
        return each_of(lambda folder: self._set_permissions(*folder, exactly), folders)

    def remove(self, places: Sequence[Place]) -> None:
        for place in places:
            with suppress(FileNotFoundError), self._parent(place) as (folder, name):
                os.unlink(name, dir_fd=folder)

    def _listed(self, path: str, name: str) -> list[Entry]:
        with self._top(path).directory(name) as folder:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                return [entry_at(fd, each, join(name, each)) for each in sorted(os.listdir(fd))]
            finally:
                os.close(fd)

    def _checksum(self, piece: Piece) -> str:
        self.tick()
        digest = hashlib.sha256()
        try:
            for chunk in self.chunks(piece.place, piece.offset, piece.offset + piece.size):
                digest.update(chunk)
        except OSError:
            return ""
        return digest.hexdigest()

    def _look(self, place: Place) -> Entry | None:
        try:
            with self._parent(place) as (folder, name):
                return status(folder, name)
        except OSError:  # creating the file will report the same error
            return None

    def _make_folder(self, place: Place) -> None:
        with self._parent(place) as (folder, name):
            os.mkdir(name, 0o700, dir_fd=folder)

    def _create(self, place: Place) -> None:
        with self._parent(place) as (folder, name):
            os.close(os.open(name, CREATING, 0o600, dir_fd=folder))

    def _finish(self, file: Finished, exactly: bool) -> None:
        with (
            self._parent(file.place) as (folder, name),
            self._writing(file.temporary) as fd,
        ):
            permissions = file.permissions if exactly else file.permissions & ~self._umask
            there = status(folder, name)
            if there is not None:
                if not there.is_file:
                    raise CopyError(in_the_way(there))
                check_owner(folder, name)
                before = os.stat(name, dir_fd=folder, follow_symlinks=False)
                permissions = file.permissions if exactly else before.st_mode & PERMISSIONS
                try:
                    os.fchown(fd, before.st_uid, before.st_gid)
                except PermissionError:  # another user owns it, and we are not root
                    self._overwrite(file, folder, name)
                    return
            os.fchmod(fd, permissions)
            temporary = file.temporary.name.rpartition("/")[2]
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _overwrite(self, file: Finished, folder: int, name: str) -> None:
        """Write into an existing file, as cp(1) does: a new one could not have the same owner."""
        fd = os.open(name, WRITING | os.O_TRUNC, dir_fd=folder)
        with open(fd, "wb") as target, self._reading(file.temporary) as source:
            while data := os.read(source, CHUNK):
                target.write(data)
        self.remove([file.temporary])

    def _make_link(self, target: str, place: Place) -> None:
        with self._parent(place) as (folder, name):
            there = status(folder, name)
            if there is None:
                os.symlink(target, name, dir_fd=folder)
                return
            if not there.is_link:
                raise CopyError(in_the_way(there))
            temporary = temporary_place(Place("", name), f".{secrets.token_hex(4)}").name
            os.symlink(target, temporary, dir_fd=folder)
            try:
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise

    def _set_permissions(self, permissions: int, place: Place, exactly: bool) -> None:
        with self._top(place.top).directory(place.name) as folder:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fchmod(fd, permissions if exactly else permissions & ~self._umask)
            finally:
                os.close(fd)

    def _top(self, path: str) -> Beneath:
        if path not in self._tops:
            self._tops[path] = Beneath(path)
        return self._tops[path]

    def _parent(self, place: Place) -> AbstractContextManager[tuple[int, str]]:
        return self._top(place.top).parent(place.name)

    @contextmanager
    def _reading(self, place: Place) -> Iterator[int]:
        """Open a regular file. A path that the user named may be a link to it."""
        if place.name:
            with self._parent(place) as (folder, name):
                fd = os.open(name, READING | os.O_NOFOLLOW, dir_fd=folder)
        else:
            fd = os.open(place.top, READING)
        try:
            check_regular(fd)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _writing(self, place: Place) -> Iterator[int]:
        """Open a file that a copy created. Raises CopyError if it may be somebody else's."""
        with self._parent(place) as (folder, name):
            fd = os.open(name, WRITING, dir_fd=folder)
        try:
            found = os.fstat(fd)
            check_regular(fd)
            if found.st_uid != os.geteuid() or found.st_nlink != 1:
                raise CopyError("belongs to another user, or has hard links")
            if found.st_mode & OTHERS_WRITE:
                raise CopyError("is writable by other users")
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _open_special(self, place: Place, kind: int) -> Iterator[int]:
        """Open a device, or a FIFO as soon as somebody reads from it. A FIFO may be a link."""
        no_link = 0 if kind == stat.S_IFIFO else os.O_NOFOLLOW
        with self._parent(place) as (folder, name):
            check_owner(folder, name, f"{place.path}: ")
        found = os.open(place.path, os.O_PATH | no_link | os.O_CLOEXEC)
        try:
            if stat.S_IFMT(os.fstat(found).st_mode) != kind:
                raise CopyError("was replaced by another file")
            fd = self._wait_for_reader(f"/proc/self/fd/{found}", kind)
        finally:
            os.close(found)
        try:
            yield fd
        finally:
            os.close(fd)

    def _wait_for_reader(self, path: str, kind: int) -> int:
        while True:
            try:
                return os.open(path, WRITING & ~os.O_NOFOLLOW)
            except OSError as error:
                if error.errno != ENXIO or kind != stat.S_IFIFO:
                    raise
            self.tick()
            time.sleep(TICK)

    def _write_all(self, fd: int, chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                try:
                    rest = rest[os.write(fd, rest) :]
                except BlockingIOError:
                    self.tick()
                    select.select([], [fd], [], TICK)


def each_of(act: Callable[[T], None], items: Sequence[T]) -> list[str]:
    """Call `act` for each item; returns the reason of each failure, and "" for success."""
    reasons = []
    for item in items:
        try:
            act(item)
        except CopyError as error:
            reasons.append(error.reason)
        except OSError as error:
            reasons.append(error.strerror or str(error))
        else:
            reasons.append("")
    return reasons


def status(folder: int, name: str) -> Entry | None:
    try:
        return entry("", os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def entry_at(folder: int, name: str, whole_name: str) -> Entry:
    found = entry(whole_name, os.stat(name, dir_fd=folder, follow_symlinks=False))
    return found._replace(target=os.readlink(name, dir_fd=folder)) if found.is_link else found


def entry(name: str, status: os.stat_result) -> Entry:
    return Entry(name, status.st_mode, status.st_size)


def check_room(fd: int, size: int) -> None:
    """Raise OSError now if the file does not fit, rather than when the disk is full."""
    disk = os.fstatvfs(fd)
    if disk.f_blocks and size > disk.f_bfree * disk.f_frsize:  # not every filesystem reports it
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def check_owner(folder: int, name: str, prefix: str = "") -> None:
    """Raise CopyError, with this prefix, if what is there may be another user's trap."""
    found, around = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(folder)
    if is_planted(found.st_uid, around.st_mode, around.st_uid, os.geteuid()):
        kind = kind_of(found.st_mode)
        raise CopyError(f"{prefix}is another user's {kind} in a world-writable directory")


def check_regular(fd: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise CopyError(f"was replaced by a {kind_of(found.st_mode)}")


def umask() -> int:
    """The umask of this process. It can be read only by setting it, here to a safe value."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
