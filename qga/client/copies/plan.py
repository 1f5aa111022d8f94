"""What to copy, and where to: the items of one copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qga.client.copies.report import Report
from qga.client.copies.trees import Entry, Item, Place, Side, can_be_sent, join, kind_of, split
from qga.client.errors import CopyError


class Planner:
    """Finds the items of a copy, and reports what cannot be copied."""

    def __init__(self, source: Side, target: Side, recursive: bool, report: Report) -> None:
        self._source = source
        self._target = target
        self._recursive = recursive
        self._report = report

    def plan(self, paths: Sequence[str], destination: str) -> list[Item]:
        """Raises CopyError if the destination cannot hold these paths."""
        there = self._target.find(destination)
        into = there is not None and there.is_folder
        if not into and (len(paths) > 1 or destination.endswith("/")):
            raise CopyError(f"{self._target.label}{destination}: no such directory")
        items: list[Item] = []
        taken: set[Place] = set()
        for path in paths:
            place = Place(destination, own_name(path)) if into else split(destination)
            for item in self._items(path, place, not into):
                if item.place in taken and not item.entry.is_folder:
                    other = self._report.there(item.place)
                    self._report.skip(item.path, f"would overwrite another copied file, {other}")
                else:
                    items.append(item)
                    taken.add(item.place)
        return items

    def _items(self, path: str, place: Place, exact: bool) -> Iterator[Item]:
        """A given path and everything below it that can be copied."""
        for entry in self._entries(path):
            into = Place(place.top, join(place.name, entry.name))
            chosen = not entry.name
            item = Item(entry, Place(path, entry.name), into, chosen, chosen and exact)
            reason = obstacle(item)
            if reason:
                self._report.skip(item.path, reason)
            else:
                yield item

    def _entries(self, path: str) -> Sequence[Entry]:
        top = self._source.find(path)
        if top is None:
            self._report.skip(path, "no such file or directory")
            return []
        if not top.is_folder:
            return [top]
        if not self._recursive:
            self._report.skip(path, "is a directory (use -r)")
            return []
        try:
            below, complaints = self._source.below(path)
        except CopyError as error:
            self._report.skip(path, error.reason)
            return []
        for complaint in complaints:
            self._report.skip(path, complaint)
        return [top, *below]


def own_name(path: str) -> str:
    """The name of a copy of `path` in a directory; "" if only its content is copied."""
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") else name


def lies_in(item: Item, folders: set[Place]) -> bool:
    """Whether the item is one of these directories or below one."""
    top, name = item.place
    while name:
        if Place(top, name) in folders:
            return True
        name = name.rpartition("/")[0]
    return False


def obstacle(item: Item) -> str:
    """Why the item cannot be copied; "" if it can."""
    entry = item.entry
    if not all(map(can_be_sent, (item.path, item.place.path, entry.target))):
        return "its name is not UTF-8, which the agent's JSON cannot carry"
    if not (entry.is_file or entry.is_folder or entry.is_link):
        return f"is a {kind_of(entry.mode)}"
    return ""
