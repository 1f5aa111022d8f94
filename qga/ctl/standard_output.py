"""Standard output and standard error: all bytes are written, and an error names the stream.

Python's own streams lose what a short write leaves, as on a disk that gets full, if
PYTHONUNBUFFERED is set; and they fail if another program has made the pipe or terminal
non-blocking.
"""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

STANDARD_OUTPUT = "standard output"
NAMES = {1: STANDARD_OUTPUT, 2: "standard error"}


class Stream(io.RawIOBase):
    """Writes to the descriptor of a file, in place of the file."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file  # nobody else may refer to it, and it would be closed

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        write_all(self.fileno(), data)
        return len(data)


def open_standard_streams() -> None:
    """Print to Streams from now on, whatever characters the locale has."""
    sys.stdout, sys.stderr = opened(sys.stdout), opened(sys.stderr)


def opened(before: TextIO) -> TextIO:
    if not isinstance(before, io.TextIOWrapper):
        return before
    before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Stream(before)),
        before.encoding,
        # A guest's names must not end in a UnicodeEncodeError where the locale is not UTF-8.
        "backslashreplace",
        line_buffering=before.line_buffering or before.write_through,
    )


def write_all(descriptor: int, data: Any) -> None:
    """Write all of it, also if that takes several calls or has to wait."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
        except OSError as error:
            raise OSError(error.errno, error.strerror, NAMES.get(descriptor)) from None


def complain(line: str) -> None:
    """A line on standard error. One that cannot be written is lost, and changes no exit status."""
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr.fileno())


def discard(descriptor: int) -> None:
    """Discard what cannot be written, so that Python does not try again when it exits."""
    with suppress(OSError):  # without descriptors
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
