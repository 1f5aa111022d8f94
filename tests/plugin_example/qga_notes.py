"""Notes that the host leaves in the guest: an example of a plugin.

They outlive the connection, in the object, and a restart of the agent, in its state directory.
"""

from __future__ import annotations

import json
import os
import time
from threading import Condition
from typing import TYPE_CHECKING, Literal, Optional, TypedDict

from qga import Caller, CommandGroup, NotRequired, QgaError, command, stop_if_given_up

if TYPE_CHECKING:
    from qga.plugin.services import Services

MAX_NOTES = 100
"""Beyond, a note is refused: the host must not fill the guest's memory."""

QgaNotePriority = Literal["low", "normal", "high"]


class QgaNote(TypedDict):
    number: int
    text: str
    priority: QgaNotePriority
    author: NotRequired[str]


class QgaNoteBoard(TypedDict):
    notes: list[QgaNote]
    connections: int
    waiting: int


class Notes(CommandGroup):
    """A board with notes."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._path = f"{agent.config.statedir}/qga-notes.json"
        self._notes: list[QgaNote] = []
        self._added = Condition()
        self._connections = 0
        self._waiting = 0

    def on_start(self) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                self._notes = json.load(file)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self.agent.log.warning(f"notes are lost: {self._path}: {error}")

    def on_stop(self) -> None:
        unfinished = f"{self._path}.new"
        with open(unfinished, "w", encoding="utf-8") as file:
            json.dump(self._notes, file)
        os.replace(unfinished, self._path)

    def on_connect(self, caller: Caller) -> None:
        self._connections += 1

    def on_disconnect(self, caller: Caller) -> None:
        self._connections -= 1

    @command(access="file-write")
    def qga_note_add(
        self, text: str, priority: QgaNotePriority = "normal", author: Optional[str] = None
    ) -> QgaNote:
        """Leave a note.

        text: what it says; must not be empty.
        priority: how much it matters.
        author: who leaves it.
        Returns the note with its number, counted from 1.
        """
        if not text:
            raise QgaError("a note without a text says nothing; give it one")
        with self._added:
            if len(self._notes) >= MAX_NOTES:
                raise QgaError(f"there are {MAX_NOTES} notes already")
            note: QgaNote = {"number": len(self._notes) + 1, "text": text, "priority": priority}
            if author is not None:
                note["author"] = author
            self._notes.append(note)
            self._added.notify_all()
        return note

    @command(access="audit", frozen=True, blocking=False)
    def qga_note_board(self) -> QgaNoteBoard:
        """All notes, how many connections the agent has, and how many wait for a note."""
        return {
            "notes": self._notes,
            "connections": self._connections,
            "waiting": self._waiting,
        }

    @command(access="audit")
    def qga_note_wait(self, number: int, seconds: float = 60) -> QgaNote:
        """Wait for a note.

        number: of the note.
        seconds: how long to wait for it at most.
        """
        if number < 1:
            raise QgaError(f"there is no note {number}: they are counted from 1")
        deadline = time.monotonic() + seconds
        with self._added:
            self._waiting += 1
            try:
                while len(self._notes) < number:
                    stop_if_given_up()
                    rest = deadline - time.monotonic()
                    if rest <= 0:
                        raise QgaError(f"there is no note {number} yet")
                    self._added.wait(min(rest, 1))
            finally:
                self._waiting -= 1
            return self._notes[number - 1]
