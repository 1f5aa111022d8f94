"""^C and its kin, taken where it does no harm.

A request to the agent that is broken off in the middle leaves behind what it has opened or
started in the guest, for nobody learns its handle or pid. So a signal is only noted when it
comes, and raised as KeyboardInterrupt by `check`, between two requests. A second one does not
wait for that.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from qga.client.results import SIGNAL_STATUS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


class Interrupts:
    """As a context: signals are noted. `status` is that of a program ended by the last one."""

    def __init__(self) -> None:
        self.status = SIGNAL_STATUS + signal.SIGINT
        self._pending = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._before = {each: signal.signal(each, self._note) for each in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def check(self) -> None:
        """KeyboardInterrupt if a signal has come since the last time."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.status = SIGNAL_STATUS + number
        if self._pending:
            raise KeyboardInterrupt
        self._pending = True
