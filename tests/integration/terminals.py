"""A program in a terminal, as a user sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from functools import partial

PATIENCE = 30.0


class Terminal:
    """The output is in `shown`. Everything that is waited for must come in time."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], rows: int = 24, columns: int = 80
    ) -> None:
        self.shown = ""
        self.screen, end = pty.openpty()
        set_size(end, rows, columns)
        self.settings = termios.tcgetattr(end)
        self.process = subprocess.Popen(
            argv,
            stdin=end,
            stdout=end,
            stderr=end,
            env=dict(env),
            start_new_session=True,
            preexec_fn=partial(fcntl.ioctl, end, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        self._end = end

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)
        os.close(self.screen)

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        set_size(self._end, rows, columns)

    def expect(self, text: str) -> str:
        """Wait until `text` appears after the last one waited for; returns the output between."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not shown, but {self.shown!r}"
            self._look()
        before, _, self.shown = self.shown.partition(text)
        return before

    def wait(self) -> int:
        """Wait until the program has exited, and return its status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on; shown is {self.shown!r}"
            self._look()
        self._look()
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal has the settings that it had when the program started."""
        return termios.tcgetattr(self._end) == self.settings

    def _look(self) -> None:
        if select.select([self.screen], [], [], 0.05)[0]:
            self.shown += os.read(self.screen, 65536).decode(errors="replace")


def set_size(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
