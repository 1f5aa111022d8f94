"""A time limit for the code of plugins while they are loaded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LOADING_TIME = 20.0
"""Time limit in seconds for loading a plugin; systemd allows 90 for the whole start."""


class _Overdue(BaseException):
    """Not an Exception, which a plugin that retries in a loop would catch."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeoutError in code that takes longer than LOADING_TIME, waiting or busy."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise _Overdue

    try:
        before = signal.signal(signal.SIGALRM, give_up)
    except ValueError:  # only the main thread can handle signals
        yield
        return
    signal.setitimer(
        signal.ITIMER_REAL, LOADING_TIME, 1
    )  # repeatedly: the code may swallow the first
    try:
        yield
    except _Overdue:
        raise TimeoutError(f"loading took longer than {LOADING_TIME:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
