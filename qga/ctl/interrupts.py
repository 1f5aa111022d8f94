"""^C and similar signals, handled between two requests to the agent.

If a request were interrupted, nobody would learn the handle or pid of what it has opened or
started in the guest. So a signal is recorded when it comes, and raised as KeyboardInterrupt by
`check`, between two requests. A second signal is raised at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from qga.client.results import SIGNAL_STATUS

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Those that end a command, which first ends what it has begun."""

SIGNALS = (*ENDING, signal.SIGPIPE)


@contextmanager
def deferred(*numbers: int) -> Iterator[None]:
    """Handle these signals at the end: their handlers write, and must not interrupt a write.

    Such a handler would meet the lock of the stream, or half of an escape sequence.
    """
    came: dict[int, None] = {}
    before: dict[int, Any] = {}
    try:
        for each in numbers:  # one that comes meanwhile may raise an exception
            before[each] = signal.signal(each, lambda n, _frame: came.setdefault(n))
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for each in came:
            signal.raise_signal(each)


class Interrupts:
    """A context manager. `status` is the exit status for the last signal."""

    def __init__(self) -> None:
        self.status = SIGNAL_STATUS + signal.SIGINT
        self._pending = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._before = {each: signal.signal(each, self._note) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come since the last call."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.status = SIGNAL_STATUS + number
        if self._pending:
            raise KeyboardInterrupt
        self._pending = True
