"""Trees of files, directories and symbolic links, and the interface of both sides of a copy.

Both sides list their trees as the same entries, so the copy itself need not know which side is the
guest. The list of a guest is checked before the host uses it: no name leads out of the tree, and
only directories contain anything.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, Protocol

from qga.client.errors import ProtocolError

# Bytes per checksum. Only the pieces that differ are transferred again, and an emulated guest can
# still read and hash one piece before the reply times out.
PIECE = 16 * 1024 * 1024

Chunks = Generator[bytes, None, None]

# Set-user-ID and set-group-ID are not copied, because the owner of the copy may be another one.
PERMISSIONS = 0o777

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Entry(NamedTuple):
    """A file, directory or symbolic link.

    name: relative to the listed path; "" for that path itself.
    mode: st_mode.
    target: of a symbolic link.
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
    """The place of a file or of a copy: `name` below the directory `top`, or `top` itself.

    The user chose `top`, so symbolic links in it are followed. A guest may have chosen `name`, so
    none is followed there.
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
    """A complete file under a temporary name, with its final place and permissions."""

    permissions: int
    temporary: Place
    place: Place
    size: int


class Side(Protocol):
    """The files of one side of a copy. Methods raise AgentError or OSError.

    A method for several files returns the reason of failure of each, and "" for success.
    label: a prefix of its paths in messages.
    """

    label: str

    @property
    def can_compare(self) -> bool:
        """Whether it can compute checksums."""

    @property
    def can_rename(self) -> bool:
        """Whether files can be written under a temporary name and renamed."""

    def close(self) -> None: ...

    def lost(self, as_target: bool) -> str:
        """A message for the user about what this side cannot do; "" if it can do everything."""

    def find(self, path: str) -> Entry | None:
        """The file at `path`, following symbolic links; None if there is none."""

    def below(self, path: str) -> tuple[list[Entry], list[str]]:
        """Everything below a directory, directories first; and errors of what cannot be listed."""

    def chunks(self, place: Place, offset: int, size: int) -> Chunks:
        """The content of a file from `offset` on; `size` is that of the listing."""

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        """The SHA-256 of each piece in hexadecimal; "" for one that cannot be read."""

    def look(self, places: Sequence[Place]) -> list[Entry | None]:
        """The file at each place, not following links; None if there is none."""

    def follow(self, place: Place) -> tuple[Place, Entry]:
        """The final target of a symbolic link, and the file there. Refuses untrusted links."""

    def make_folders(self, places: Sequence[Place]) -> list[str]:
        """Create directories with mode 0700, outer ones first."""

    def create(
        self, places: Sequence[Place], permissions: Sequence[int | None], exactly: bool
    ) -> list[str]:
        """Create empty files with mode 0600.

        A file whose final permissions are known may get those at once, minus the umask unless
        `exactly` is set.
        """

    def take_up(self, place: Place) -> int | None:
        """The size of the file that an earlier copy left behind; None if there is none.

        Raises CopyError if it may be somebody else's: it is a link, belongs to another user, or
        others can write to it.
        """

    def write(
        self, place: Place, offset: int, size: int, chunks: Iterator[bytes], keep: bool = True
    ) -> None:
        """Write the content of a created file from `offset` on; `size` is the expected total.

        Without `keep` the file may be removed as soon as writing fails.
        """

    def write_through(self, place: Place, kind: int, chunks: Iterator[bytes]) -> None:
        """Write into a device or FIFO; `kind` is the result of stat.S_IFMT."""

    def finish(self, files: Sequence[Finished], exactly: bool) -> list[str]:
        """Rename files to their final names, and set their permissions.

        A new file gets its permissions minus the umask. One that replaces a regular file gets the
        owner and permissions of that file. With `exactly` it gets its own permissions in any case.
        """

    def make_links(self, links: Sequence[tuple[str, Place]]) -> list[str]:
        """Create symbolic links with these targets, replacing existing links."""

    def set_permissions(self, folders: Sequence[tuple[int, Place]], exactly: bool) -> list[str]:
        """Set permissions of created directories, minus the umask unless `exactly` is set."""

    def remove(self, places: Sequence[Place]) -> None:
        """Remove files, if they exist."""


def pieces_of(place: Place, size: int) -> list[Piece]:
    return [Piece(place, offset, min(PIECE, size - offset)) for offset in range(0, size, PIECE)]


def checked(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, directories first. Raises ProtocolError if one leads out of the tree."""
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
    """A path that the user named, as a name in its directory."""
    folder, name = posixpath.split(path)
    return Place(folder or ".", name)


def can_be_sent(name: str) -> bool:
    """Whether JSON can carry the name: its bytes must be UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def temporary_place(place: Place, distinction: str = "") -> Place:
    """A hidden name in the same directory, no longer than filesystems allow."""
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
    """Whether a symbolic link, FIFO or file may be another user's trap.

    This is the rule of fs.protected_symlinks=1 and fs.protected_regular=1 in the kernel, which are
    not set on every system.
    """
    shared = folder_mode & stat.S_ISVTX and folder_mode & stat.S_IWOTH
    return bool(shared) and owner not in (us, folder_owner)
