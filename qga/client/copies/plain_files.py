"""The guest's side of a copy if no program can be run there: single files, with guest-file-* only.

Directories cannot be listed, and files cannot be renamed or removed. So a file is written in place:
anyone who reads it during the copy sees only a part, and a failed copy leaves a part behind. The
text of `lost` tells the user.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property

from qga.client.commands.files import SLACK
from qga.client.copies.guest_files import GuestFiles
from qga.client.copies.trees import Entry, Finished, Piece, Place
from qga.client.errors import CommandError, CommandNotFound, CopyError

# Parts of the agent's error messages, the same in qga and QEMU's agent.
MISSING, IS_FOLDER = "No such file or directory", "Is a directory"

# Permissions of a copy if those of the original are unknown.
UNKNOWN_PERMISSIONS = stat.S_IRUSR | stat.S_IWUSR

REASON = "requires guest-exec and a shell, which this guest does not offer"


class PlainFiles(GuestFiles):
    """Files of a guest whose agent runs no programs."""

    can_rename = False
    slack = SLACK

    @cached_property
    def can_compare(self) -> bool:
        return "qga-file-checksum" in self.enabled()

    def lost(self, as_target: bool) -> str:
        losses = ["directories cannot be copied"]
        if as_target:
            losses += ["files are written in place", "permissions are not copied"]
        else:
            losses += ["permissions are unknown (a new file gets 0600)"]
        if not self.can_compare:
            losses += ["checksums are not compared"]
        return f"this guest's agent runs no programs (guest-exec): {', '.join(losses)}"

    def find(self, path: str) -> Entry | None:
        try:
            with self.agent.opened(path, "r") as handle:
                try:
                    self.agent.file_read(handle, 1)
                except CommandError as error:
                    if IS_FOLDER in error.desc:
                        return Entry("", stat.S_IFDIR, 0)
                return Entry("", stat.S_IFREG | UNKNOWN_PERMISSIONS, self._size(handle))
        except CommandNotFound:
            raise
        except CommandError as error:
            if MISSING in error.desc:
                return None
            # It may still be writable. If it is to be read, the same error comes up again.
            return Entry("", stat.S_IFREG | UNKNOWN_PERMISSIONS, 0)

    def below(self, path: str) -> tuple[list[Entry], list[str]]:
        raise CopyError(f"copying a directory {REASON}")

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        return [self._checksum(piece) for piece in pieces] if self.can_compare else []

    def look(self, places: Sequence[Place]) -> list[Entry | None]:
        return [None for _ in places]  # the agent decides what it writes through

    def follow(self, place: Place) -> tuple[Place, Entry]:
        raise CopyError(f"following a link {REASON}")

    def make_folders(self, places: Sequence[Place]) -> list[str]:
        return [f"making a directory {REASON}" for _ in places]

    def create(
        self, places: Sequence[Place], permissions: Sequence[int | None], exactly: bool
    ) -> list[str]:
        return ["" for _ in places]  # done by opening it to write

    def take_up(self, place: Place) -> int | None:
        raise CopyError(f"resuming a copy into the guest {REASON}")

    def write_through(self, place: Place, kind: int, chunks: Iterator[bytes]) -> None:
        self.write(place, 0, 0, chunks)

    def finish(self, files: Sequence[Finished], exactly: bool) -> list[str]:
        return ["" for _ in files]

    def make_links(self, links: Sequence[tuple[str, Place]]) -> list[str]:
        return [f"making a symbolic link {REASON}" for _ in links]

    def set_permissions(self, folders: Sequence[tuple[int, Place]], exactly: bool) -> list[str]:
        return [f"setting permissions {REASON}" for _ in folders]

    def remove(self, places: Sequence[Place]) -> None:
        pass

    def _size(self, handle: int) -> int:
        size = 0
        with suppress(CommandError):  # a FIFO has no size
            size = self.agent.file_seek(handle, 0, "end").position
        if size < 0:
            raise CopyError(f"the guest reports a size of {size}")
        return size
