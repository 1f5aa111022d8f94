"""One copy: from one side to the other, file by file.

A file is written under a temporary name in the same directory, compared with its original by
checksums, and then renamed. So anyone who looks at the path sees either the old file or the
complete new one, and an aborted copy leaves nothing behind. With `resume` the temporary file is
kept, and the next copy continues with the pieces that still agree.

As with cp(1), data is written through a symbolic link or into a FIFO that the user named; into a
device only if it is the destination itself, not the target of a link. Nothing that only the guest
named is written through.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from qga.client.copies.comparison import Comparison
from qga.client.copies.counting import Counter, Digests, same
from qga.client.copies.plan import Planner, lies_in
from qga.client.copies.report import SILENCE, Observer, Report, Summary, reason_of
from qga.client.copies.trees import (
    Entry,
    Finished,
    Item,
    Place,
    Side,
    in_the_way,
    kind_of,
    pieces_of,
    temporary_place,
)
from qga.client.errors import AgentError, CopyError
from qga.client.waits import undisturbed

# Files and bytes that are compared and renamed together.
LOT, LOT_SIZE = 64, 64 * 1024 * 1024

DEVICES = (stat.S_IFBLK, stat.S_IFCHR)


class Options(NamedTuple):
    """How to copy: see `copy_to`."""

    recursive: bool
    resume: bool
    preserve: bool
    growth: int


class Draft(NamedTuple):
    """A file to be written to `temporary` and then renamed to `place`.

    offset: bytes that an earlier copy has already written.
    resumable: whether the temporary file is kept if this copy is aborted.
    permissions: its final permissions if they are known beforehand.
    """

    item: Item
    place: Place
    temporary: Place
    is_new: bool = True
    offset: int = 0
    resumable: bool = False
    permissions: int | None = None


class Moved(NamedTuple):
    """A file whose bytes have been written on the target."""

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
        self._report = Report(observer, source.label, target.label)
        self._comparison = Comparison(source, target)
        self._moved: list[Moved] = []
        self._temporaries: set[Place] = set()
        """Temporary files to be removed unless they are renamed."""

    def summary(self, seconds: float, port: str | None) -> Summary:
        counts = (self.files, self.folders, self.links, self.unchanged, self.size)
        return Summary(*counts, seconds, port, self._report.skipped, self._report.notes)

    def copy(self, paths: Sequence[str], destination: str) -> None:
        self._report.note(self.source.lost(False) or self.target.lost(True))
        if self.options.resume and not self.target.can_rename:
            raise CopyError("cannot resume a copy into this guest, which does not offer guest-exec")
        planner = Planner(self.source, self.target, self.options.recursive, self._report)
        items = planner.plan(paths, destination)
        files = [item for item in items if item.entry.is_file]
        self.observer.planned(len(files), sum(item.entry.size for item in files))
        folders = [item for item in items if item.entry.is_folder]
        made, blocked = self._make_folders(folders)
        items = [item for item in items if not lies_in(item, blocked)]
        self._copy_files([item for item in items if item.entry.is_file])
        self._make_links([item for item in items if item.entry.is_link])
        permissions = [(item.entry.permissions, item.place) for item in reversed(made)]
        reasons = self.target.set_permissions(permissions, self.options.preserve)
        self._report.skip_failed(list(reversed(made)), reasons)
        self.folders = len([item for item in folders if item.place not in blocked])

    def _make_folders(self, folders: Sequence[Item]) -> tuple[list[Item], set[Place]]:
        """Make the missing directories; returns them, and the places where that is impossible."""
        # A directory without a name is the destination itself.
        inner = [item for item in folders if item.place.name]
        missing: list[Item] = []
        blocked: set[Place] = set()
        for item, there in zip(inner, self.target.look([item.place for item in inner])):
            if there is None:
                missing.append(item)
            elif not there.is_folder:
                self._report.skip_failed([item], [in_the_way(there)])
                blocked.add(item.place)
        missing = [item for item in missing if not lies_in(item, blocked)]
        reasons = self.target.make_folders([item.place for item in missing])
        made: list[Item] = []
        for item, reason in zip(missing, reasons):
            if not reason:
                made.append(item)
            else:
                if not lies_in(item, blocked):
                    self._report.skip_failed([item], [reason])
                blocked.add(item.place)
        return made, blocked

    def _make_links(self, links: Sequence[Item]) -> None:
        reasons = self.target.make_links([(item.entry.target, item.place) for item in links])
        self._report.skip_failed(links, reasons)
        self.links = reasons.count("")

    def _copy_files(self, files: Sequence[Item]) -> None:
        """Copy file by file, but prepare, compare and rename them in batches."""
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
        """Create the temporary files. FIFOs and devices are written to here."""
        drafts: list[Draft] = []
        for item, there in zip(items, self.target.look([item.place for item in items])):
            with self._report.skipping(item):
                place, kind = self._checked_landing(item, there)
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
        failed = self._create([draft for draft in drafts if draft.is_new])
        return [draft for draft in drafts if draft.temporary not in failed]

    def _create(self, drafts: Sequence[Draft]) -> set[Place]:
        """Create temporary files; returns those that could not be created."""
        if self.target.can_rename:
            self._temporaries.update(draft.temporary for draft in drafts)
        reasons = self.target.create(
            [draft.temporary for draft in drafts],
            [draft.permissions for draft in drafts],
            self.options.preserve,
        )
        self._report.skip_failed([draft.item for draft in drafts], reasons)
        failed = {draft.temporary for draft, reason in zip(drafts, reasons) if reason}
        self._temporaries -= failed  # these files belong to somebody else
        return failed

    def _checked_landing(self, item: Item, there: Entry | None) -> tuple[Place, int]:
        """The same as `_landing`, but an error names the place."""
        try:
            return self._landing(item, there)
        except SILENCE:
            raise
        except (CopyError, OSError) as error:
            where = self._report.there(item.place)
            raise CopyError(f"{where}: {reason_of(error)}") from None

    def _landing(self, item: Item, there: Entry | None) -> tuple[Place, int]:
        """Where to write a file, and the type of the FIFO or device there; 0 if there is none."""
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
                self._report.note(f"{self._report.there(temporary)}: not resumed: {error.reason}")
            else:
                offset = self._common(item, temporary, size or 0)
                if offset:
                    return Draft(item, place, temporary, False, offset, resumable=True)
                if size is not None:
                    self.target.remove([temporary])
                return Draft(item, place, temporary, resumable=True)
        return Draft(item, place, temporary_place(place, f".{secrets.token_hex(4)}"))

    def _copy_file(self, draft: Draft) -> None:
        """Write the bytes to the target. An error of this file skips it."""
        item = draft.item
        self.observer.started(item.path)
        if draft.resumable:
            self._temporaries.discard(draft.temporary)
        with self._report.skipping(item):
            self.observer.moved(draft.offset)
            counter = self._counter(item, draft.offset)
            with closing(self.source.chunks(item.origin, draft.offset, item.entry.size)) as chunks:
                self.target.write(
                    draft.temporary,
                    draft.offset,
                    item.entry.size,
                    counter.count(chunks),
                    draft.resumable or not self.target.can_rename,
                )
            self._moved.append(Moved(draft, counter.total))

    def _write_through(self, item: Item, place: Place, kind: int) -> None:
        """Copy into a device or FIFO. It cannot be read back, so the passing bytes are compared."""
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
        """Compare and rename the files that have been written; skip those that differ."""
        moved, self._moved = self._moved, []
        whole = []
        for each, is_same in zip(moved, self._agree(moved)):
            if is_same:
                whole.append(each)
            else:
                reason = "changed while it was copied, or was damaged"
                self._report.skip(each.draft.item.path, reason)
        finished = [
            Finished(draft.item.entry.permissions, draft.temporary, draft.place, size)
            for draft, size in whole
        ]
        reasons = self.target.finish(finished, self.options.preserve)
        self._report.skip_failed([each.draft.item for each in whole], reasons)
        for (draft, size), reason in zip(whole, reasons):
            if not reason:
                self._temporaries.discard(draft.temporary)
                self.files += 1
                self.size += size

    def _is_there(self, item: Item, place: Place) -> bool:
        """Whether the same file is already at its place."""
        (there,) = self.target.look([place])
        size = item.entry.size
        return (
            there is not None
            and there.is_file
            and there.size == size
            and self._common(item, place, size) == size
        )

    def _common(self, item: Item, place: Place, size: int) -> int:
        """How many of the first `size` bytes of both files agree."""
        return 0 if size > item.entry.size else self._comparison.common(item.origin, place, size)

    def _agree(self, moved: Sequence[Moved]) -> list[bool]:
        """Whether each file is the same on both sides now."""
        return self._comparison.agree(
            [(draft.item.origin, draft.temporary, size) for draft, size in moved]
        )

    def _counter(self, item: Item, offset: int) -> Counter:
        limit = item.entry.size + self.options.growth
        return Counter(offset, limit, self.observer.moved)

    def _drop(self) -> None:
        """Remove unfinished temporary files."""
        with suppress(AgentError, OSError), undisturbed():
            self.target.remove(list(self._temporaries))
        self._temporaries.clear()
