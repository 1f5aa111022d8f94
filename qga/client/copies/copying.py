"""Copying files and folders to a guest and from it.

    copy_to(agent, ["site", "nginx.conf"], "/etc/web", recursive=True)
    copy_from(agent, ["/var/log/syslog"], "logs")

A file is written under a temporary name beside its own, compared by checksums with what it was
copied from, and only then renamed: whoever looks at the place sees the old file or the new one,
never half of it, and whatever ends the copy leaves nothing else behind. With `resume` the
temporary file stays, and the next copy goes on where its pieces still agree.

Which side is the guest makes no difference here: both are `Side`s.
"""

from __future__ import annotations

import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from typing import NamedTuple

from qga.client.agent import GuestAgent
from qga.client.copies.guest_files import GuestFiles
from qga.client.copies.local_files import LocalFiles
from qga.client.copies.trees import (
    Entry,
    Finished,
    Side,
    can_be_sent,
    join,
    pieces_of,
    temporary_name,
)
from qga.client.data_ports import DataPorts
from qga.client.errors import AgentError, CommandError, CopyError

# Files, and bytes, that are compared and renamed together.
LOT, LOT_SIZE = 64, 64 * 1024 * 1024


class Summary(NamedTuple):
    """What was copied. `unchanged`: files that were there already (looked for on resuming).

    `port` is the data port that bytes passed through. `skipped` has a reason for each path.
    """

    files: int
    folders: int
    links: int
    unchanged: int
    bytes: int
    seconds: float
    port: str | None
    skipped: list[tuple[str, str]]


class Observer:
    """Is told how a copy gets on; any of these may raise to end it."""

    def planned(self, files: int, size: int) -> None:
        """So much will be copied."""

    def started(self, path: str) -> None:
        """This file is next."""

    def moved(self, count: int) -> None:
        """So many bytes are done; 0 while we wait."""

    def skipped(self, path: str, reason: str) -> None:
        """This will not be copied."""


def copy_to(
    agent: GuestAgent,
    paths: Sequence[str],
    destination: str,
    *,
    recursive: bool = False,
    resume: bool = False,
    observer: Observer | None = None,
    ports: DataPorts | None = None,
) -> Summary:
    """Copy files of this machine into the guest, as cp(1) does.

    `destination` is an absolute path; a folder that is there takes the copies into it.
    `recursive`: folders, too. A symbolic link among `paths` is followed, one below a folder is
    copied as such. `ports` are the data ports that may be used, by default those beside the
    agent's socket.
    """
    return _copy(agent, True, paths, destination, recursive, resume, observer, ports)


def copy_from(
    agent: GuestAgent,
    paths: Sequence[str],
    destination: str,
    *,
    recursive: bool = False,
    resume: bool = False,
    observer: Observer | None = None,
    ports: DataPorts | None = None,
) -> Summary:
    """Copy files of the guest to this machine; everything is as for `copy_to`."""
    return _copy(agent, False, paths, destination, recursive, resume, observer, ports)


def _copy(
    agent: GuestAgent,
    into_guest: bool,
    paths: Sequence[str],
    destination: str,
    recursive: bool,
    resume: bool,
    observer: Observer | None,
    ports: DataPorts | None,
) -> Summary:
    watcher = observer or Observer()
    guest = GuestFiles(agent, lambda: watcher.moved(0), ports or DataPorts(agent.address))
    local = LocalFiles(guest.tick)
    source: Side = local if into_guest else guest
    target: Side = guest if into_guest else local
    with closing(guest):
        copier = Copier(source, target, resume, watcher)
        start = time.monotonic()
        copier.copy(paths, destination, recursive)
        return copier.summary(time.monotonic() - start, guest.port_used)


class Item(NamedTuple):
    """Something to copy, from where and to where."""

    entry: Entry
    origin: str
    place: str


class Moved(NamedTuple):
    """A file whose bytes are at the other side, under a temporary name."""

    item: Item
    temporary: str
    size: int


class Copier:
    """One copy from one side to the other."""

    def __init__(self, source: Side, target: Side, resume: bool, observer: Observer) -> None:
        self.source = source
        self.target = target
        self.resume = resume
        self.observer = observer
        self.files = self.unchanged = self.size = 0
        self.folders = self.links = 0
        self.skipped: list[tuple[str, str]] = []
        self._moved: list[Moved] = []

    def summary(self, seconds: float, port: str | None) -> Summary:
        counts = (self.files, self.folders, self.links, self.unchanged, self.size)
        return Summary(*counts, seconds, port, self.skipped)

    def copy(self, paths: Sequence[str], destination: str, recursive: bool) -> None:
        items = self._plan(paths, destination, recursive)
        files = [item for item in items if item.entry.is_file]
        folders = [item for item in items if item.entry.is_folder]
        self.observer.planned(len(files), sum(item.entry.size for item in files))
        self._make_folders(folders)
        self._copy_files(files)
        links = [item for item in items if item.entry.is_link]
        self.target.make_links([(item.entry.target, item.place) for item in links])
        self.target.set_permissions(
            [(item.entry.permissions, item.place) for item in reversed(folders)]
        )
        self.folders, self.links = len(folders), len(links)

    def _plan(self, paths: Sequence[str], destination: str, recursive: bool) -> list[Item]:
        there = self.target.find(destination)
        into = there is not None and there.is_folder
        if not into and (len(paths) > 1 or destination.endswith("/")):
            raise CopyError(f"{destination}: is no folder that is there")
        items: list[Item] = []
        for path in paths:
            place = join(destination, own_name(path)) if into else destination
            items += self._items(path, place, recursive)
        return items

    def _items(self, path: str, place: str, recursive: bool) -> Iterator[Item]:
        """A path that was given, and all that is below it, as far as it can be copied."""
        top = self.source.find(path)
        if top is None:
            self._skip(path, "no such file or folder")
            return
        found = [top]
        if top.is_folder:
            if not recursive:
                self._skip(path, "is a folder: copy it with -r")
                return
            below, complaints = self.source.below(path)
            found += below
            for complaint in complaints:
                self._skip(path, complaint)
        for entry in found:
            item = Item(entry, join(path, entry.name), join(place, entry.name))
            reason = obstacle(item)
            if reason:
                self._skip(item.origin, reason)
            else:
                yield item

    def _make_folders(self, folders: Sequence[Item]) -> None:
        for item in folders:
            if not item.entry.name:
                self.target.make_folder(item.place)
        self.target.make_folders([item.place for item in folders if item.entry.name])

    def _copy_files(self, files: Sequence[Item]) -> None:
        """Copy file by file; compare and rename them in lots."""
        try:
            for item in files:
                self.observer.started(item.origin)
                self._copy_file(item)
                lot = self._moved
                if len(lot) >= LOT or sum(moved.size for moved in lot) >= LOT_SIZE:
                    self._finish()
            self._finish()
        except BaseException:
            self._drop([moved.temporary for moved in self._moved])
            raise

    def _copy_file(self, item: Item) -> None:
        """Bring the bytes to the other side. What goes wrong with this file skips it."""
        try:
            if self.resume and self._is_there(item):
                self.unchanged += 1
                self.observer.moved(item.entry.size)
                return
            distinction = "" if self.resume else f".{secrets.token_hex(4)}"
            temporary = temporary_name(item.place, distinction)
            offset = self._agreed(item, temporary) if self.resume else 0
            self.observer.moved(offset)
            size = self._move(item, temporary, offset)
        except (CommandError, CopyError) as error:
            self._skip(item.origin, error.reason)
        except OSError as error:
            self._skip(error.filename or item.origin, error.strerror or str(error))
        else:
            self._moved.append(Moved(item, temporary, size))

    def _move(self, item: Item, temporary: str, offset: int) -> int:
        """Copy the bytes from `offset` on; how long the file is then."""
        counter = Counter(offset, self.observer.moved)
        try:
            with closing(self.source.chunks(item.origin, offset, item.entry.size)) as chunks:
                self.target.write(temporary, offset, item.entry.size, counter.count(chunks))
        except BaseException:
            self._drop([temporary])
            raise
        return counter.total

    def _finish(self) -> None:
        """Compare and rename the files that have been moved; skip those that differ."""
        pieces = [pieces_of(moved.item.origin, moved.size) for moved in self._moved]
        copies = [pieces_of(moved.temporary, moved.size) for moved in self._moved]
        theirs = iter(self.source.checksums(list(chain(*pieces))))
        ours = iter(self.target.checksums(list(chain(*copies))))
        finished: list[Finished] = []
        for moved in self._moved:
            count = len(pieces_of("", moved.size))
            if same(list(islice(theirs, count)), list(islice(ours, count)), count):
                finished.append(
                    Finished(moved.item.entry.permissions, moved.temporary, moved.item.place)
                )
                self.size += moved.size
            else:
                self._skip(moved.item.origin, "changed while it was copied, or was damaged")
                self._drop([moved.temporary])
        self.target.finish(finished)
        self.files += len(finished)
        self._moved = []

    def _is_there(self, item: Item) -> bool:
        """Whether the file is at its place already, the same."""
        there = self.target.find(item.place)
        size = item.entry.size
        return (
            there is not None
            and there.is_file
            and there.size == size
            and self._common(item.origin, item.place, size) == size
        )

    def _agreed(self, item: Item, temporary: str) -> int:
        """How much of the file an earlier copy has brought over."""
        part = self.target.find(temporary)
        if part is None or not part.is_file or part.size > item.entry.size:
            return 0
        return self._common(item.origin, temporary, part.size)

    def _common(self, origin: str, place: str, size: int) -> int:
        """How many of the first `size` bytes of two files are the same, by pieces."""
        agreed = 0
        for theirs, ours in zip(pieces_of(origin, size), pieces_of(place, size)):
            if not same(self.source.checksums([theirs]), self.target.checksums([ours]), 1):
                break
            agreed += ours.size
        return agreed

    def _drop(self, temporaries: Sequence[str]) -> None:
        """Remove what will not be finished, unless it is for the next time."""
        if not self.resume:
            with suppress(AgentError, OSError):
                self.target.remove(temporaries)

    def _skip(self, path: str, reason: str) -> None:
        self.skipped.append((path, reason))
        self.observer.skipped(path, reason)


class Counter:
    """Counts bytes as they pass."""

    def __init__(self, total: int, moved: Callable[[int], None]) -> None:
        self.total = total
        self.moved = moved

    def count(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.total += len(chunk)
            self.moved(len(chunk))
            yield chunk


def same(theirs: Sequence[str], ours: Sequence[str], count: int) -> bool:
    """Whether these are `count` checksums each, and the same ones."""
    return len(theirs) == count and theirs == ours and all(theirs)


def own_name(path: str) -> str:
    """What a path is called in the folder that it is copied into; "" for its own content."""
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") else name


def obstacle(item: Item) -> str:
    """Why this cannot be copied, if so."""
    entry = item.entry
    if not all(map(can_be_sent, (item.origin, item.place, entry.target))):
        return "its name is not UTF-8, which the agent's JSON cannot carry"
    if not (entry.is_file or entry.is_folder or entry.is_link):
        return f"is a {KINDS.get(stat.S_IFMT(entry.mode), 'file of an unknown kind')}"
    return ""


KINDS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}
