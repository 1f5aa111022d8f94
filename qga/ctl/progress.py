"""The progress of a copy: a bar with rate and remaining time on a terminal, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Callable

from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from qga.client.copies.copying import Observer
from qga.ctl import display, tables
from qga.ctl.units import amount_of, size


class Amount(ProgressColumn):
    """`1.5 of 840.0 MiB`: both in the unit of the total, so that the unit never changes."""

    def render(self, task: Task) -> Text:
        return Text(amount_of(task.completed, task.total) if task.total else "")


class Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(int(speed))}/s" if speed else "")


COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    Amount(),
    Rate(),
    TimeRemainingColumn(),
)

NAME_LENGTH = 30


class Progress(Observer):
    """Shows a copy on stderr; a context manager. `check` is called often, and may raise."""

    def __init__(self, check: Callable[[], None], *, shown: bool) -> None:
        self.check = check
        console = tables.console(stderr=True)
        shown = shown and console.is_terminal
        self._bars = Bars(*COLUMNS, console=console, disable=not shown)
        # Until the total is known, rich would count up to 100 bytes.
        self._task = self._bars.add_task("", start=False, total=None)
        self._files = self._number = 0

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bars.disable:  # rich 13.3 prints an empty line otherwise
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
        display.note(text)
