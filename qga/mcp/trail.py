"""The log: each call with its arguments, and its outcome, as lines of JSON."""

from __future__ import annotations

import json
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from errno import EPERM
from itertools import count
from typing import Any, TextIO

from qga.mcp.arguments import Argument
from qga.wording import counted

LONGEST_VALUE = 1000
"""Characters of an argument in the log."""

MOST_WAITING = 1000
"""Lines buffered for the reader of standard error."""

LAST_LINES = 1.0
"""Seconds to write them when the server exits."""

MODE = 0o600

SECRET_WORD = re.compile(
    r"(?i)^(?P<name>[-\w]*(?:pass|passwd|password|token|secret|api[-_]?key)[-\w]*=).+", re.DOTALL
)
"""An argument of a program that may contain a secret, such as --password=…"""


class Trail:
    """Writes to standard error, and to a file that only its owner can read.

    Raises OSError if the file cannot be opened, or may be another user's.
    """

    def __init__(self, path: str = "", stderr: TextIO = sys.stderr) -> None:
        self._stderr = Unhurried(stderr)
        self._file: TextIO | None = None
        self._numbers = count(1)
        self._lock = threading.Lock()
        if path:
            self._file = os.fdopen(opened(path), "a", encoding="utf-8")

    def begin(self, tool: str, arguments: Mapping[str, Any], known: Sequence[Argument]) -> int:
        """Log the beginning of a call; returns its number. Hides values of unknown arguments.

        Raises OSError if the file cannot be written: then nobody would learn of the call.
        """
        plain = {each.name for each in known if not each.secret}
        shown = {
            name[:LONGEST_VALUE]: without_secrets(value) if name in plain else hidden(value)
            for name, value in arguments.items()
        }
        number = next(self._numbers)
        self._write({"call": number, "tool": tool[:LONGEST_VALUE], "arguments": shown})
        return number

    def end(self, number: int, outcome: str, seconds: float) -> None:
        outcome = outcome[:LONGEST_VALUE]
        with suppress(OSError):
            self._write({"call": number, "outcome": outcome, "seconds": round(seconds, 3)})

    def note(self, text: str) -> None:
        """Log something that belongs to no call."""
        with suppress(OSError):
            self._write({"note": text[:LONGEST_VALUE]})

    def _write(self, entry: Mapping[str, Any]) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        line = json.dumps({"time": at, **entry}).replace("\x7f", "\\u007f")
        self._stderr.write(line)
        if self._file is not None:
            with self._lock:
                self._file.write(f"{line}\n")
                self._file.flush()

    def close(self) -> None:
        self._stderr.close()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def opened(path: str) -> int:
    """A descriptor for appending. Whoever owns the file, or has a link to it, reads the log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags | os.O_NONBLOCK, MODE)  # a FIFO without a reader is an error
    try:
        found = os.fstat(fd)
        if found.st_uid not in (0, os.geteuid()) or found.st_nlink != 1:
            raise OSError(EPERM, "belongs to another user, or has hard links")
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Unhurried:
    """Writes lines to a pipe without ever blocking the caller, even if nobody reads the pipe."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line; it is lost if too many are waiting already."""
        with suppress(queue.Full):
            self._lines.put_nowait(line)

    def close(self) -> None:
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(LAST_LINES)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError, ValueError):  # the reader has closed the pipe
                self._output.write(f"{line}\n")
                self._output.flush()


def hidden(value: Any) -> Any:
    """A placeholder that shows only the size of a secret."""
    if isinstance(value, dict):
        return {name[:LONGEST_VALUE]: hidden(each) for name, each in value.items()}
    return f"<{counted(len(str(value)), 'character')}>"


def without_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    if isinstance(value, str):
        return SECRET_WORD.sub(r"\g<name><hidden>", value)[:LONGEST_VALUE]
    return value if isinstance(value, (int, float, bool)) else str(value)[:LONGEST_VALUE]
