"""Calls on threads that their caller can wait for.

Those of a ThreadPoolExecutor keep Python from exiting, even one that a guest hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from errno import EAGAIN
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def beside(call: Callable[[], T]) -> Future[T]:
    """Start a call on a new thread, which does not keep the process from exiting.

    If there can be no thread, the outcome is an OSError, as for other resources.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    try:
        Thread(target=run, daemon=True).start()
    except RuntimeError as error:
        outcome.set_exception(OSError(EAGAIN, str(error)))
    return outcome
