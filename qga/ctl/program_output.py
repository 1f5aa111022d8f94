"""What becomes of the output of a program: it is passed on, or kept for the end."""

from __future__ import annotations

import os
import sys

from qga.client.results import ExecResult
from qga.ctl import display
from qga.ctl.settings import Settings

# Bytes of each stream that --json keeps in memory.
MOST_KEPT = 32 * 1024 * 1024


class Streams:
    """Passes output on to stdout and stderr at once, byte for byte."""

    def out(self, data: bytes) -> None:
        write_all(sys.stdout.fileno(), data)

    def err(self, data: bytes) -> None:
        write_all(sys.stderr.fileno(), data)

    def finish(self, result: ExecResult | None) -> None:
        """Report output that is missing."""
        if result:
            display.report_truncated(result)


class Kept:
    """The first `MOST_KEPT` bytes of a stream."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.truncated = False

    def take(self, data: bytes) -> None:
        kept = data[: MOST_KEPT - len(self.data)]
        self.data += kept
        self.truncated |= len(kept) < len(data)


class Collected(Streams):
    """Keeps output, to print it as JSON."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._out, self._err = Kept(), Kept()

    def out(self, data: bytes) -> None:
        self._out.take(data)

    def err(self, data: bytes) -> None:
        self._err.take(data)

    def finish(self, result: ExecResult | None) -> None:
        if result:
            whole = result._replace(
                stdout=bytes(self._out.data),
                stderr=bytes(self._err.data),
                stdout_truncated=result.stdout_truncated or self._out.truncated,
                stderr_truncated=result.stderr_truncated or self._err.truncated,
            )
            self._settings.print(display.exec_json(whole))


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        # A pipe may take less than it is given.
        rest = rest[os.write(descriptor, rest) :]
