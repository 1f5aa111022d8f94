"""The output of a program: passed on at once, or collected for JSON."""

from __future__ import annotations

import sys
from threading import Lock

from qga.client.results import ExecResult
from qga.ctl import display
from qga.ctl.settings import Output, Settings
from qga.ctl.standard_output import write_all

# Bytes of each stream that --json keeps in memory: of one guest, and of each of several.
MOST_KEPT = 32 * 1024 * 1024
MOST_KEPT_OF_EACH = 4 * 1024 * 1024

# Bytes of a line that are kept until its end comes; a longer one is printed in pieces.
LONGEST_LINE = 64 * 1024

# Held while output of one of several guests is printed.
printing = Lock()


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


class Lines:
    """Passes output on in whole lines, each with the name of its guest before it."""

    def __init__(self, guest: str) -> None:
        self._guest = guest
        self._out = Line(sys.stdout.fileno(), guest)
        self._err = Line(sys.stderr.fileno(), guest)

    def out(self, data: bytes) -> None:
        self._out.take(data)

    def err(self, data: bytes) -> None:
        self._err.take(data)

    def finish(self, result: ExecResult | None) -> None:
        """Print lines without an end, and report output that is missing."""
        self._out.end()
        self._err.end()
        if result:
            display.report_truncated(result, self._guest)


class Line:
    """The lines of one stream; the last one is kept until it is whole."""

    def __init__(self, descriptor: int, guest: str) -> None:
        self._descriptor = descriptor
        self._name = f"{display.printable(guest)}: ".encode(errors="backslashreplace")
        self._begun = b""

    def take(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > LONGEST_LINE:
            lines.append(self._begun)
            self._begun = b""
        if lines:
            with printing:
                write_all(self._descriptor, b"".join(self._name + line + b"\n" for line in lines))

    def end(self) -> None:
        if self._begun:
            self.take(b"\n")


class Kept:
    """The first bytes of a stream, at most `most`."""

    def __init__(self, most: int) -> None:
        self.data = bytearray()
        self.truncated = False
        self._most = most

    def take(self, data: bytes) -> None:
        kept = data[: self._most - len(self.data)]
        self.data += kept
        self.truncated |= len(kept) < len(data)


class Collected:
    """Keeps output, to print it as JSON; `guest`: the name of one of several."""

    def __init__(self, settings: Settings, guest: str = "") -> None:
        self._settings = settings
        self._guest = guest
        most = MOST_KEPT_OF_EACH if guest else MOST_KEPT
        self._out, self._err = Kept(most), Kept(most)

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
            if self._guest:
                print_of(self._settings, self._guest, display.exec_json(whole))
            else:
                self._settings.print(display.exec_json(whole))
                sys.stdout.flush()


def print_of(settings: Settings, guest: str, value: dict[str, object]) -> None:
    """An object about one of several guests: JSON on a line, or a YAML document."""
    with printing:
        if settings.output is Output.YAML:
            print("---")
        settings.print({"guest": guest, **value})
        sys.stdout.flush()
