"""What is copied: files, folders and symbolic links by their names below one path.

Both sides of a copy list their trees as these entries, so that the copy itself need not know
which side is the guest. A guest's list is checked before anything is made of it on the host:
no name leads out of the tree, and nothing lies below what is no folder.
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


class Piece(NamedTuple):
    """`size` bytes of a file from `offset` on."""

    path: str
    offset: int
    size: int


class Finished(NamedTuple):
    """A file that is whole under a temporary name, and what is to become of it."""

    permissions: int
    temporary: str
    path: str


class Side(Protocol):
    """The files of one side of a copy. Errors are AgentError or OSError."""

    def find(self, path: str) -> Entry | None:
        """What is at `path`, symbolic links followed; None if nothing is."""

    def below(self, path: str) -> tuple[list[Entry], list[str]]:
        """All below a folder, folders first; and complaints about what cannot be listed."""

    def chunks(self, path: str, offset: int, size: int) -> Chunks:
        """A file's bytes from `offset` on; it had `size` of them when it was listed."""

    def write(self, path: str, offset: int, size: int, chunks: Iterator[bytes]) -> None:
        """Write the bytes of a file from `offset` on; it will have `size` of them."""

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        """The SHA-256 of each, in hexadecimal digits; "" for one that cannot be read."""

    def make_folder(self, path: str) -> None:
        """Make the folder that all others lie in; it may be there, also as a link to one."""

    def make_folders(self, paths: Sequence[str]) -> None:
        """Make folders below that; what is there must be a folder, and no link."""

    def finish(self, files: Sequence[Finished]) -> None:
        """Give files their permissions and their names."""

    def make_links(self, links: Sequence[tuple[str, str]]) -> None:
        """Make symbolic links, given as target and path, in the place of older ones."""

    def set_permissions(self, folders: Sequence[tuple[int, str]]) -> None: ...

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files that may be there."""


def pieces_of(path: str, size: int, start: int = 0) -> list[Piece]:
    return [Piece(path, offset, min(PIECE, size - offset)) for offset in range(start, size, PIECE)]


def checked(entries: Sequence[Entry]) -> list[Entry]:
    """A guest's list, folders first; ProtocolError if it would lead us out of the tree."""
    ordered = sorted(entries, key=lambda entry: (not entry.is_folder, entry.name))
    folders, names = {""}, {""}
    for entry in ordered:
        parent, _, last = entry.name.rpartition("/")
        if last in ("", ".", "..") or "\0" in last or parent not in folders or entry.name in names:
            raise ProtocolError(f"the guest lists a file as {entry.name!r}")
        names.add(entry.name)
        if entry.is_folder:
            folders.add(entry.name)
    return ordered


def join(folder: str, name: str) -> str:
    return posixpath.join(folder, name) if name else folder


def can_be_sent(name: str) -> bool:
    """Whether JSON can carry it: bytes that are no UTF-8 it cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def temporary_name(path: str, distinction: str = "") -> str:
    """A name beside `path`, no longer than file systems allow."""
    folder, name = posixpath.split(path)
    stem = name.encode()[:200].decode(errors="ignore")
    return join(folder, f".{stem}{distinction}.qga-part")
