"""How a copy gets on: a bar with rate and remaining time on a terminal, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from qga.client.copies.copying import Observer
from qga.ctl import display

COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    DownloadColumn(binary_units=True),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
)

NAME_LENGTH = 30


class Progress(Observer):
    """Shows a copy on stderr; a context. `check` is called often, and may raise to end it."""

    def __init__(self, check: Callable[[], None], *, quiet: bool) -> None:
        self.check = check
        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        shown = self._console.is_terminal and not quiet
        self._bars = Bars(*COLUMNS, console=self._console, disable=not shown)
        self._task = self._bars.add_task("", start=False)
        self._files = self._number = 0

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def planned(self, files: int, size: int) -> None:
        self._files = files
        self._bars.start_task(self._task)
        self._bars.update(self._task, total=size)

    def started(self, path: str) -> None:
        self._number += 1
        name = display.printable(path.rstrip("/").rpartition("/")[2])
        if len(name) > NAME_LENGTH:
            name = f"{name[: NAME_LENGTH - 1]}…"
        number = f" ({self._number}/{self._files})" if self._files > 1 else ""
        self._bars.update(self._task, description=f"{name}{number}")

    def moved(self, count: int) -> None:
        self.check()
        if count:
            self._bars.advance(self._task, count)

    def skipped(self, path: str, reason: str) -> None:
        display.say(f"{path}: {reason}")

    def noted(self, text: str) -> None:
        display.say(text)
