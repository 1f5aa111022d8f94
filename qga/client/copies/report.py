"""What a copy reports: its progress, what it skips, and its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from qga.client.copies.trees import Item, Place
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ConnectError,
    CopyError,
)

# Errors that end the whole copy, although they are OSErrors.
SILENCE = (AgentTimeout, ConnectError)


class Summary(NamedTuple):
    """The result of a copy.

    files, folders, links: how many were copied.
    unchanged: files that were already there; only a resumed copy looks for them.
    bytes: in the copied files.
    port: the data port that was used; None if the data passed through the agent.
    skipped: paths that were not copied, with the reasons.
    notes: other messages for the user.
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

    def require_all(self) -> Summary:
        """The same; raises CopyError if anything was skipped."""
        if self.skipped:
            path, reason = self.skipped[0]
            others = len(self.skipped) - 1
            raise CopyError(f"{path}: {reason}" + (f" (and {others} more)" if others else ""))
        return self


class Observer:
    """Follows the progress of a copy. Each method may raise an exception to end it."""

    def planned(self, files: int, size: int) -> None:
        """Called once, with the number of files and bytes to copy."""

    def started(self, path: str) -> None:
        """Called before each file."""

    def moved(self, count: int) -> None:
        """Called for each chunk with its number of bytes, and with 0 while waiting."""

    def skipped(self, path: str, reason: str) -> None:
        """Called when a path is not copied."""

    def noted(self, text: str) -> None:
        """Called with a message for the user, such as what the copy loses."""


class Report:
    """Collects what is skipped and noted, and passes it on to the observer."""

    def __init__(self, observer: Observer, source_label: str, target_label: str) -> None:
        self.skipped: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._observer = observer
        self._source_label = source_label
        self._target_label = target_label

    @contextmanager
    def skipping(self, item: Item) -> Iterator[None]:
        """A context in which an error of this file skips the file."""
        try:
            yield
        except (CommandNotFound, *SILENCE):
            raise
        except (CommandError, CopyError, OSError) as error:
            self.skip(item.path, reason_of(error))

    def skip_failed(self, items: Sequence[Item], reasons: Sequence[str]) -> None:
        """Skip the items that the target could not handle; the reason of the others is ""."""
        for item, reason in zip(items, reasons):
            if reason:
                self.skip(item.path, f"{self.there(item.place)}: {reason}")

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append((path, reason))
        self._observer.skipped(self._source_label + path, reason)

    def there(self, place: Place) -> str:
        """The path of a place on the target, for messages."""
        return self._target_label + place.path

    def note(self, text: str) -> None:
        if text:
            self.notes.append(text)
            self._observer.noted(text)


def reason_of(error: AgentError | OSError) -> str:
    return error.reason if isinstance(error, AgentError) else error.strerror or str(error)
