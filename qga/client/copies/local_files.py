"""The host's side of a copy.

What a guest has us write stays in the folder that was named: files are made anew under a name
that nobody had, or taken up again only if they are no links; folders must be folders.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from errno import EISDIR, ENOTDIR

from qga.client.copies.trees import Chunks, Entry, Finished, Piece, join

CHUNK = 1024 * 1024


class LocalFiles:
    """Files of this machine, as a side of a copy. Reading much calls `tick` now and then."""

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self.tick = tick

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
                found = sorted(os.listdir(join(path, name)))
                inside = [entry_at(path, join(name, each)) for each in found]
            except OSError as error:
                complaints.append(str(error))
                continue
            entries += inside
            waiting += [each.name for each in inside if each.is_folder]
        entries.sort(key=lambda each: (not each.is_folder, each.name))
        return entries, complaints

    def chunks(self, path: str, offset: int, size: int) -> Chunks:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            rest = size - offset
            while rest > 0:
                chunk = file.read(min(CHUNK, rest))
                if not chunk:
                    return
                rest -= len(chunk)
                yield chunk

    def write(self, path: str, offset: int, size: int, chunks: Iterator[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags | (0 if offset else os.O_TRUNC), 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            file.seek(offset)
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) or 0 :]

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        return [self._checksum(piece) for piece in pieces]

    def make_folder(self, path: str) -> None:
        if not os.path.isdir(path):
            os.mkdir(path)

    def make_folders(self, paths: Sequence[str]) -> None:
        for path in paths:
            try:
                os.mkdir(path)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise NotADirectoryError(
                        ENOTDIR, "is in the way of a folder of this name", path
                    ) from None

    def finish(self, files: Sequence[Finished]) -> None:
        for file in files:
            if os.path.isdir(file.path):
                raise IsADirectoryError(EISDIR, os.strerror(EISDIR), file.path)
            os.chmod(file.temporary, file.permissions)
            os.replace(file.temporary, file.path)

    def make_links(self, links: Sequence[tuple[str, str]]) -> None:
        for target, path in links:
            if os.path.islink(path):
                os.unlink(path)
            os.symlink(target, path)

    def set_permissions(self, folders: Sequence[tuple[int, str]]) -> None:
        for permissions, path in folders:
            os.chmod(path, permissions)

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _checksum(self, piece: Piece) -> str:
        self.tick()
        digest = hashlib.sha256()
        try:
            for chunk in self.chunks(piece.path, piece.offset, piece.offset + piece.size):
                digest.update(chunk)
        except OSError:
            return ""
        return digest.hexdigest()


def entry_at(path: str, name: str) -> Entry:
    place = join(path, name)
    found = entry(name, os.lstat(place))
    return found._replace(target=os.readlink(place)) if found.is_link else found


def entry(name: str, status: os.stat_result) -> Entry:
    return Entry(name, status.st_mode, status.st_size)
