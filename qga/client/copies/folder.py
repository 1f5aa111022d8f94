"""A directory of this machine that a copy cannot leave, for paths that nobody has vetted.

Paths are relative to the directory. What must stay true: nothing outside it is read, written or
examined, even if somebody puts a symbolic link into it. No component of a path may be a link.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qga.client.copies.beneath import Beneath
from qga.client.copies.local_files import READING, LocalFiles, check_regular, entry, status
from qga.client.copies.trees import Entry, Place, is_inside, kind_of, split
from qga.client.errors import CopyError

WHOLE = "."
"""The path of the directory itself."""


class HostFolder:
    """Raises OSError if there is no such directory."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.beneath = Beneath(self.path)

    def relative(self, path: str) -> str | None:
        """Make an absolute path relative to the directory; None if it is outside."""
        if path == self.path:
            return WHOLE
        start = f"{self.path.rstrip('/')}/"
        name = path[len(start) :].rstrip("/") if path.startswith(start) else ""
        return name if is_inside(name) else None

    def files(self, tick: Callable[[], None]) -> FolderFiles:
        """The files in the directory, as a side of a copy."""
        return FolderFiles(self, tick)


class FolderFiles(LocalFiles):
    """Files of a HostFolder."""

    def __init__(self, folder: HostFolder, tick: Callable[[], None]) -> None:
        super().__init__(tick)
        self._folder = folder

    def find(self, path: str) -> Entry | None:
        try:
            if path == WHOLE:
                with self._folder.beneath.directory() as fd:
                    return entry("", os.fstat(fd))
            with self._folder.beneath.parent(path) as (fd, name):
                return status(fd, name)
        except FileNotFoundError:
            return None

    def follow(self, place: Place) -> tuple[Place, Entry]:
        raise CopyError("is a symbolic link, which is not followed in this directory")

    def write_through(self, place: Place, kind: int, chunks: Iterator[bytes]) -> None:
        raise CopyError(f"is a {kind_of(kind)}, which is not written to in this directory")

    def _top(self, path: str) -> Beneath:
        if path not in self._tops:
            with self._folder.beneath.directory("" if path == WHOLE else path) as fd:
                self._tops[path] = Beneath(f"/proc/self/fd/{fd}")
        return self._tops[path]

    @contextmanager
    def _reading(self, place: Place) -> Iterator[int]:
        whole = place if place.name else split(place.top)
        with self._parent(whole) as (folder, name):
            fd = os.open(name, READING | os.O_NOFOLLOW, dir_fd=folder)
        try:
            check_regular(fd)
            yield fd
        finally:
            os.close(fd)
