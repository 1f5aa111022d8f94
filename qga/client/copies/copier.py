"""One copy: from one side to the other, file by file.

A file is written under a temporary name beside its own, compared by checksums with what it was
copied from, and only then renamed: whoever looks at the place sees the old file or the new one,
never half of it, and whatever ends the copy leaves nothing else behind. With `resume` the
temporary file stays, and the next copy goes on where its pieces still agree.

As with cp(1), a symbolic link or FIFO that the user has named is written through; a device only
if it is the destination itself, by no link. What a guest names is never written through.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from typing import NamedTuple

from qga.client.copies.counting import Counter, Digests, same
from qga.client.copies.trees import (
    Entry,
    Finished,
    Place,
    Side,
    can_be_sent,
    in_the_way,
    join,
    kind_of,
    pieces_of,
    split,
    temporary_place,
)
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ConnectError,
    CopyError,
)

# Files, and bytes, that are compared and renamed together.
LOT, LOT_SIZE = 64, 64 * 1024 * 1024

# Errors that end the whole copy, although they are OSErrors.
SILENCE = (AgentTimeout, ConnectError)


class Summary(NamedTuple):
    """What was copied. `unchanged`: files that were there already (looked for on resuming).

    `port` is the data port that bytes passed through. `skipped` has a reason for each path,
    `notes` what else the user should know.
    """

    files: int
    folders: int
    links: int
    unchanged: int
    bytes: int
    seconds: float
    port: str | None
    skipped: list[tuple[str, str]]
    notes: list[str]


class Observer:
    """Follows the progress of a copy. Any of these methods may raise to end it."""

    def planned(self, files: int, size: int) -> None:
        """So much will be copied."""

    def started(self, path: str) -> None:
        """This file is next."""

    def moved(self, count: int) -> None:
        """So many bytes are done; 0 while we wait."""

    def skipped(self, path: str, reason: str) -> None:
        """This will not be copied."""

    def noted(self, text: str) -> None:
        """The copy is not all that it could be."""


class Options(NamedTuple):
    """How to copy: see `copy_to`."""

    recursive: bool
    resume: bool
    preserve: bool
    growth: int


class Item(NamedTuple):
    """Something to copy, from where and to where.

    `chosen`: the user's own words say where, none of the guest's. `exact`: it is the destination
    itself, and not in it.
    """

    entry: Entry
    origin: Place
    place: Place
    chosen: bool
    exact: bool

    @property
    def path(self) -> str:
        return self.origin.path


class Draft(NamedTuple):
    """A file that is to be at `place`, and first at `temporary`.

    `offset`: bytes that an earlier copy has brought there. `resumable`: it stays if this one is
    broken off. `permissions`: what it will have, if that is known.
    """

    item: Item
    place: Place
    temporary: Place
    is_new: bool = True
    offset: int = 0
    resumable: bool = False
    permissions: int | None = None


class Moved(NamedTuple):
    """A file whose bytes are at the other side."""

    draft: Draft
    size: int


class Copier:
    """One copy from one side to the other."""

    def __init__(self, source: Side, target: Side, options: Options, observer: Observer) -> None:
        self.source = source
        self.target = target
        self.options = options
        self.observer = observer
        self.files = self.unchanged = self.size = 0
        self.folders = self.links = 0
        self.skipped: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._can_compare = source.can_compare and target.can_compare
        self._moved: list[Moved] = []
        self._temporaries: set[Place] = set()
        """Those that are to be removed if nothing comes of them."""

    def summary(self, seconds: float, port: str | None) -> Summary:
        counts = (self.files, self.folders, self.links, self.unchanged, self.size)
        return Summary(*counts, seconds, port, self.skipped, self.notes)

    def copy(self, paths: Sequence[str], destination: str) -> None:
        self._note(self.source.lost(False) or self.target.lost(True))
        if self.options.resume and not self.target.can_rename:
            raise CopyError("cannot resume a copy into this guest, which does not offer guest-exec")
        items = self._plan(paths, destination)
        files = [item for item in items if item.entry.is_file]
        self.observer.planned(len(files), sum(item.entry.size for item in files))
        folders = [item for item in items if item.entry.is_folder]
        made, blocked = self._make_folders(folders)
        items = [item for item in items if not lies_in(item, blocked)]
        self._copy_files([item for item in items if item.entry.is_file])
        self._make_links([item for item in items if item.entry.is_link])
        permissions = [(item.entry.permissions, item.place) for item in reversed(made)]
        reasons = self.target.set_permissions(permissions, self.options.preserve)
        self._skip_failed(list(reversed(made)), reasons)
        self.folders = len([item for item in folders if item.place not in blocked])

    def _plan(self, paths: Sequence[str], destination: str) -> list[Item]:
        there = self.target.find(destination)
        into = there is not None and there.is_folder
        if not into and (len(paths) > 1 or destination.endswith("/")):
            raise CopyError(f"{self.target.label}{destination}: no such directory")
        items: list[Item] = []
        taken: set[Place] = set()
        for path in paths:
            place = Place(destination, own_name(path)) if into else split(destination)
            for item in self._items(path, place, not into):
                if item.place in taken and not item.entry.is_folder:
                    other = self._there(item.place)
                    self._skip(item.path, f"would overwrite another copied file, {other}")
                else:
                    items.append(item)
                    taken.add(item.place)
        return items

    def _items(self, path: str, place: Place, exact: bool) -> Iterator[Item]:
        """A path that was given, and all that is below it, as far as it can be copied."""
        top = self.source.find(path)
        if top is None:
            self._skip(path, "no such file or directory")
            return
        if top.is_folder and not self.options.recursive:
            self._skip(path, "is a directory (use -r)")
            return
        try:
            below, complaints = self.source.below(path) if top.is_folder else ([], [])
        except CopyError as error:
            self._skip(path, error.reason)
            return
        for complaint in complaints:
            self._skip(path, complaint)
        for entry in (top, *below):
            into = Place(place.top, join(place.name, entry.name))
            chosen = entry is top
            item = Item(entry, Place(path, entry.name), into, chosen, chosen and exact)
            reason = obstacle(item)
            if reason:
                self._skip(item.path, reason)
            else:
                yield item

    def _make_folders(self, folders: Sequence[Item]) -> tuple[list[Item], set[Place]]:
        """Make those that are not there: these, and the places where none can be."""
        inner = [item for item in folders if item.place.name]  # the others are the destination
        missing: list[Item] = []
        blocked: set[Place] = set()
        for item, there in zip(inner, self.target.look([item.place for item in inner])):
            if there is None:
                missing.append(item)
            elif not there.is_folder:
                self._skip_failed([item], [in_the_way(there)])
                blocked.add(item.place)
        missing = [item for item in missing if not lies_in(item, blocked)]
        reasons = self.target.make_folders([item.place for item in missing])
        made: list[Item] = []
        for item, reason in zip(missing, reasons):
            if not reason:
                made.append(item)
            else:
                if not lies_in(item, blocked):
                    self._skip_failed([item], [reason])
                blocked.add(item.place)
        return made, blocked

    def _make_links(self, links: Sequence[Item]) -> None:
        reasons = self.target.make_links([(item.entry.target, item.place) for item in links])
        self._skip_failed(links, reasons)
        self.links = reasons.count("")

    def _copy_files(self, files: Sequence[Item]) -> None:
        """Copy file by file; prepare, compare and rename them in lots."""
        for start in range(0, len(files), LOT):
            try:
                for draft in self._drafts(files[start : start + LOT]):
                    self._copy_file(draft)
                    if sum(moved.size for moved in self._moved) >= LOT_SIZE:
                        self._finish()
                self._finish()
            finally:
                self._drop()

    def _drafts(self, items: Sequence[Item]) -> list[Draft]:
        """Where the bytes of these are to go; those that may be written through are done."""
        drafts: list[Draft] = []
        for item, there in zip(items, self.target.look([item.place for item in items])):
            with self._skipping(item):
                try:
                    place, kind = self._landing(item, there)
                except SILENCE:
                    raise
                except (CopyError, OSError) as error:
                    raise CopyError(f"{self._there(item.place)}: {reason_of(error)}") from None
                if kind:
                    self._write_through(item, place, kind)
                elif self.options.resume and self._is_there(item, place):
                    self.unchanged += 1
                    self.observer.moved(item.entry.size)
                else:
                    draft = self._draft(item, place)
                    if there is None and not draft.resumable:
                        draft = draft._replace(permissions=item.entry.permissions)
                    drafts.append(draft)
        new = [draft for draft in drafts if draft.is_new]
        self._temporaries.update(draft.temporary for draft in new if self.target.can_rename)
        reasons = self.target.create(
            [draft.temporary for draft in new],
            [draft.permissions for draft in new],
            self.options.preserve,
        )
        self._skip_failed([draft.item for draft in new], reasons)
        failed = {draft.temporary for draft, reason in zip(new, reasons) if reason}
        self._temporaries -= failed  # they are somebody else's
        return [draft for draft in drafts if draft.temporary not in failed]

    def _landing(self, item: Item, there: Entry | None) -> tuple[Place, int]:
        """Where to write a file, and the kind of what it is written through, if so."""
        if there is None or there.is_file:
            return item.place, 0
        place, kind = item.place, stat.S_IFMT(there.mode)
        if there.is_link and item.chosen:
            place, leads_to = self.target.follow(item.place)
            if leads_to.is_file:
                return place, 0
            kind = stat.S_IFMT(leads_to.mode)
            if kind != stat.S_IFIFO:
                name = f"{place.path}, a {kind_of(kind)}"
                raise CopyError(f"is a symbolic link to {name}: name that to write to it")
        if (kind == stat.S_IFIFO and item.chosen) or (kind in DEVICES and item.exact):
            return place, kind
        raise CopyError(in_the_way(there))

    def _draft(self, item: Item, place: Place) -> Draft:
        if not self.target.can_rename:
            return Draft(item, place, place)
        if self.options.resume:
            temporary = temporary_place(place)
            try:
                size = self.target.take_up(temporary)
            except CopyError as error:
                self._note(f"{self._there(temporary)}: not resumed: {error.reason}")
            else:
                offset = self._common(item, temporary, size or 0)
                if offset:
                    return Draft(item, place, temporary, False, offset, resumable=True)
                if size is not None:
                    self.target.remove([temporary])
                return Draft(item, place, temporary, resumable=True)
        return Draft(item, place, temporary_place(place, f".{secrets.token_hex(4)}"))

    def _copy_file(self, draft: Draft) -> None:
        """Bring the bytes to the other side. What goes wrong with this file skips it."""
        item = draft.item
        self.observer.started(item.path)
        if draft.resumable:
            self._temporaries.discard(draft.temporary)
        with self._skipping(item):
            self.observer.moved(draft.offset)
            counter = self._counter(item, draft.offset)
            with closing(self.source.chunks(item.origin, draft.offset, item.entry.size)) as chunks:
                self.target.write(
                    draft.temporary, draft.offset, item.entry.size, counter.count(chunks)
                )
            self._moved.append(Moved(draft, counter.total))

    def _write_through(self, item: Item, place: Place, kind: int) -> None:
        """Copy into a device or FIFO: what has passed is compared, for it cannot be read back."""
        self.observer.started(item.path)
        counter, digests = self._counter(item, 0), Digests()
        with closing(self.source.chunks(item.origin, 0, item.entry.size)) as chunks:
            self.target.write_through(place, kind, digests.count(counter.count(chunks)))
        pieces = pieces_of(item.origin, counter.total)
        if self.source.can_compare and not same(
            self.source.checksums(pieces), digests.finished(), len(pieces)
        ):
            raise CopyError("changed while it was copied")
        self.files += 1
        self.size += counter.total

    def _finish(self) -> None:
        """Compare and rename the files that have been moved; skip those that differ."""
        moved, self._moved = self._moved, []
        whole = []
        for each, is_same in zip(moved, self._compared(moved)):
            if is_same:
                whole.append(each)
            else:
                self._skip(each.draft.item.path, "changed while it was copied, or was damaged")
        finished = [
            Finished(draft.item.entry.permissions, draft.temporary, draft.place, size)
            for draft, size in whole
        ]
        reasons = self.target.finish(finished, self.options.preserve)
        self._skip_failed([each.draft.item for each in whole], reasons)
        for (draft, size), reason in zip(whole, reasons):
            if not reason:
                self._temporaries.discard(draft.temporary)
                self.files += 1
                self.size += size

    def _compared(self, moved: Sequence[Moved]) -> list[bool]:
        """Whether the files are the same at both sides by now."""
        if not self._can_compare:
            return [True for _ in moved]
        pieces = [pieces_of(draft.item.origin, size) for draft, size in moved]
        copies = [pieces_of(draft.temporary, size) for draft, size in moved]
        theirs = iter(self.source.checksums(list(chain(*pieces))))
        ours = iter(self.target.checksums(list(chain(*copies))))
        counts = [len(each) for each in pieces]
        return [
            same(list(islice(theirs, count)), list(islice(ours, count)), count) for count in counts
        ]

    def _is_there(self, item: Item, place: Place) -> bool:
        """Whether the file is at its place already, the same."""
        (there,) = self.target.look([place])
        size = item.entry.size
        return (
            there is not None
            and there.is_file
            and there.size == size
            and self._common(item, place, size) == size
        )

    def _common(self, item: Item, place: Place, size: int) -> int:
        """How many of the first `size` bytes of two files are the same, by pieces."""
        if not self._can_compare or size > item.entry.size:
            return 0
        agreed = 0
        for theirs, ours in zip(pieces_of(item.origin, size), pieces_of(place, size)):
            if not same(self.source.checksums([theirs]), self.target.checksums([ours]), 1):
                break
            agreed += ours.size
        return agreed

    def _counter(self, item: Item, offset: int) -> Counter:
        limit = item.entry.size + self.options.growth
        return Counter(offset, limit, self.observer.moved)

    def _drop(self) -> None:
        """Remove what will not be finished."""
        with suppress(AgentError, OSError):
            self.target.remove(list(self._temporaries))
        self._temporaries.clear()

    @contextmanager
    def _skipping(self, item: Item) -> Iterator[None]:
        """What goes wrong with this file skips it."""
        try:
            yield
        except (CommandNotFound, *SILENCE):
            raise
        except (CommandError, CopyError, OSError) as error:
            self._skip(item.path, reason_of(error))

    def _skip_failed(self, items: Sequence[Item], reasons: Sequence[str]) -> None:
        """Skip what the target could not do, "" in `reasons` being what it could."""
        for item, reason in zip(items, reasons):
            if reason:
                self._skip(item.path, f"{self._there(item.place)}: {reason}")

    def _skip(self, path: str, reason: str) -> None:
        self.skipped.append((path, reason))
        self.observer.skipped(self.source.label + path, reason)

    def _there(self, place: Place) -> str:
        return self.target.label + place.path

    def _note(self, text: str) -> None:
        if text:
            self.notes.append(text)
            self.observer.noted(text)


def reason_of(error: AgentError | OSError) -> str:
    return error.reason if isinstance(error, AgentError) else error.strerror or str(error)


def own_name(path: str) -> str:
    """What a path is called in the directory that it is copied into; "" for its own content."""
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") else name


def lies_in(item: Item, folders: set[Place]) -> bool:
    """Whether it is one of these directories, or somewhere below one."""
    top, name = item.place
    while name:
        if Place(top, name) in folders:
            return True
        name = name.rpartition("/")[0]
    return False


def obstacle(item: Item) -> str:
    """Why this cannot be copied, if so."""
    entry = item.entry
    if not all(map(can_be_sent, (item.path, item.place.path, entry.target))):
        return "its name is not UTF-8, which the agent's JSON cannot carry"
    if not (entry.is_file or entry.is_folder or entry.is_link):
        return f"is a {kind_of(entry.mode)}"
    return ""


DEVICES = (stat.S_IFBLK, stat.S_IFCHR)
