"""What is copied: files, directories and symbolic links by their names below one path.

Both sides of a copy list their trees as these entries, so that the copy itself need not know
which side is the guest. A guest's list is checked before anything is made of it on the host:
no name leads out of the tree, and nothing lies below anything but a directory.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, Protocol

from qga.client.errors import ProtocolError

# Bytes that are compared by one checksum: a bad piece costs its own transfer, and a guest that
# is emulated still reads and hashes so much within the time that an answer may take.
PIECE = 16 * 1024 * 1024

Chunks = Generator[bytes, None, None]

# Set-user-ID and the like are not copied: who made the file is not who owns the copy.
PERMISSIONS = 0o777

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Entry(NamedTuple):
    """`name` is relative to the path that was listed, "" for that itself.

    `mode` is st_mode; `target` is where a symbolic link leads.
    """

    name: str
    mode: int
    size: int
    target: str = ""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        return self.mode & PERMISSIONS


class Place(NamedTuple):
    """Where a file is, or is to be: `name` below the directory `top`, or `top` itself.

    `top` is a path that the user has given, and symbolic links in it are followed. None is
    followed in `name`, which a guest may have chosen.
    """

    top: str
    name: str = ""

    @property
    def path(self) -> str:
        return join(self.top, self.name)


class Item(NamedTuple):
    """Something to copy, from where and to where.

    chosen: whether the user named it; the guest may have named all others.
    exact: whether it becomes the destination itself, rather than something in it.
    """

    entry: Entry
    origin: Place
    place: Place
    chosen: bool
    exact: bool

    @property
    def path(self) -> str:
        return self.origin.path


class Piece(NamedTuple):
    """`size` bytes of a file from `offset` on."""

    place: Place
    offset: int
    size: int


class Finished(NamedTuple):
    """A file that is whole under a temporary name, and what is to become of it."""

    permissions: int
    temporary: Place
    place: Place
    size: int


class Side(Protocol):
    """The files of one side of a copy. Errors are AgentError or OSError.

    What is done for several files has a reason for each: "" where it was done, else why not.
    `label` is written before its paths in messages.
    """

    label: str

    @property
    def can_compare(self) -> bool:
        """Whether there are checksums."""

    @property
    def can_rename(self) -> bool:
        """Whether there are temporary names; else a file is written where it belongs."""

    def close(self) -> None: ...

    def lost(self, as_target: bool) -> str:
        """What this side cannot do, in a sentence for the user; "" if it can do everything."""

    def find(self, path: str) -> Entry | None:
        """What is at `path`, symbolic links followed; None if nothing is."""

    def below(self, path: str) -> tuple[list[Entry], list[str]]:
        """All below a directory, directories first; complaints about what cannot be listed."""

    def chunks(self, place: Place, offset: int, size: int) -> Chunks:
        """A file's bytes from `offset` on; it had `size` of them when it was listed."""

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        """The SHA-256 of each, in hexadecimal digits; "" for one that cannot be read."""

    def look(self, places: Sequence[Place]) -> list[Entry | None]:
        """What is at each, links not followed; None where nothing is."""

    def follow(self, place: Place) -> tuple[Place, Entry]:
        """Where a symbolic link that may be followed leads in the end, and what is there."""

    def make_folders(self, places: Sequence[Place]) -> list[str]:
        """Make directories for ourselves alone, the outer ones first."""

    def create(
        self, places: Sequence[Place], permissions: Sequence[int | None], exactly: bool
    ) -> list[str]:
        """Make new empty files for ourselves alone.

        One whose final `permissions` are known may have these at once, less the umask if not
        `exactly`.
        """

    def take_up(self, place: Place) -> int | None:
        """Length of the file that an earlier copy left; None if it left none.

        CopyError if it may not be our own: one of another user, a link, or one that others can
        write.
        """

    def write(self, place: Place, offset: int, size: int, chunks: Iterator[bytes]) -> None:
        """Write the bytes of such a file from `offset` on; it will have `size` of them."""

    def write_through(self, place: Place, kind: int, chunks: Iterator[bytes]) -> None:
        """Write into a device or a FIFO; `kind` as of stat.S_IFMT."""

    def finish(self, files: Sequence[Finished], exactly: bool) -> list[str]:
        """Give files their permissions and their names.

        A new one gets its permissions less the umask. In the place of another regular file it
        has the owner and the permissions of that. `exactly`: its own permissions in any case.
        """

    def make_links(self, links: Sequence[tuple[str, Place]]) -> list[str]:
        """Make symbolic links, given by their targets, in the place of older ones."""

    def set_permissions(self, folders: Sequence[tuple[int, Place]], exactly: bool) -> list[str]:
        """Give directories that we have made their permissions, less the umask if not `exactly`."""

    def remove(self, places: Sequence[Place]) -> None:
        """Remove files that may be there."""


def pieces_of(place: Place, size: int) -> list[Piece]:
    return [Piece(place, offset, min(PIECE, size - offset)) for offset in range(0, size, PIECE)]


def checked(entries: Sequence[Entry]) -> list[Entry]:
    """A guest's list, directories first; ProtocolError if it would lead us out of the tree."""
    ordered = sorted(entries, key=lambda entry: (not entry.is_folder, entry.name))
    folders, names = {""}, {""}
    for entry in ordered:
        parent = entry.name.rpartition("/")[0]
        if not is_inside(entry.name) or parent not in folders or entry.name in names:
            raise ProtocolError(f"the guest lists a file as {entry.name!r}")
        names.add(entry.name)
        if entry.is_folder:
            folders.add(entry.name)
    return ordered


def is_inside(name: str) -> bool:
    """Whether a relative name stays below the directory that it is relative to."""
    return "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))


def join(folder: str, name: str) -> str:
    return posixpath.join(folder, name) if name else folder


def split(path: str) -> Place:
    """A path that the user has given, as a name in the directory where it is."""
    folder, name = posixpath.split(path)
    return Place(folder or ".", name)


def can_be_sent(name: str) -> bool:
    """Whether JSON can carry it: bytes that are not UTF-8 it cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def temporary_place(place: Place, distinction: str = "") -> Place:
    """A name beside `place`, no longer than filesystems allow."""
    folder, name = posixpath.split(place.name)
    stem = name.encode(errors="surrogateescape")[:200].decode(errors="ignore")
    return Place(place.top, posixpath.join(folder, f".{stem}{distinction}.qga-part"))


KINDS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
}


def kind_of(mode: int) -> str:
    return KINDS.get(stat.S_IFMT(mode), "file of an unknown kind")


def in_the_way(there: Entry) -> str:
    return f"a {kind_of(there.mode)} of this name is in the way"


def is_planted(owner: int, folder_mode: int, folder_owner: int, us: int) -> bool:
    """Whether a symbolic link may be a trap of another user.

    As the kernel decides with fs.protected_symlinks=1, which not every system has set.
    """
    shared = folder_mode & stat.S_ISVTX and folder_mode & stat.S_IWOTH
    return bool(shared) and owner not in (us, folder_owner)
