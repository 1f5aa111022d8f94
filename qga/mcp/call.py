"""One call of a tool, its deadline and its cancellation.

A call runs on its own thread. It ends at its deadline, or when the client cancels it: every request
to an agent checks this first, and waits no longer than the remaining time. Requests that clean up
afterwards get some extra time.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from qga.client.agent import GuestAgent
from qga.client.monitoring.watch import Target
from qga.client.transports import Transport

T = TypeVar("T")

CLEANING_UP = 5.0
"""Seconds for each request that cleans up after a call."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end all calls and the server."""

TURN = 0.05
"""Seconds between two checks for cancellation while a call waits for another one."""


class Stopped(Exception):
    """The call was cancelled, or its deadline has passed."""


class Call:
    """A call in progress. seconds: how long it may take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.cancelled = threading.Event()
        self._deadline = time.monotonic() + seconds
        self._is_over = False

    @property
    def remaining(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    @property
    def is_wanted(self) -> bool:
        return self.remaining > 0 and not self.cancelled.is_set()

    def extend(self, seconds: float) -> None:
        """Set another time limit, counted from now. Call this before the work begins."""
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds

    def check(self) -> None:
        """Raise Stopped, once, if the call was cancelled or its deadline has passed."""
        if self._is_over or self.is_wanted:
            return
        self._is_over = True
        if self.cancelled.is_set():
            raise Stopped("cancelled")
        raise Stopped(f"not done after {self.seconds:g} s")

    def patience(self, seconds: float) -> float:
        """The time limit of a request that may otherwise take `seconds`."""
        self.check()
        return min(seconds, CLEANING_UP if self._is_over else self.remaining)

    def noticed(self) -> None:
        """Call this when a request has failed. If the call has ended, the following requests
        count as cleaning up."""
        self._is_over |= not self.is_wanted

    def wait(self, seconds: float) -> None:
        self.cancelled.wait(min(seconds, self.remaining))
        self.check()

    @contextmanager
    def turn(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock that other calls may hold for a long time."""
        while not lock.acquire(timeout=TURN):
            self.check()
        try:
            yield
        finally:
            lock.release()


class Agent(GuestAgent):
    """The agent of a guest, shared by several calls, each on its own thread."""

    def __init__(self, target: Target, timeout: float) -> None:
        super().__init__(target.address, timeout)
        self.place = self.address
        """The address. Errors contain the guest's name instead."""
        self.address = target.name
        self._served = threading.local()

    @contextmanager
    def serving(self, call: Call) -> Iterator[None]:
        """A context in which the requests of this thread belong to a call."""
        self._served.call = call
        try:
            yield
        finally:
            del self._served.call

    def _perform(
        self, command: str, timeout: float | None, step: Callable[[Transport, float], T]
    ) -> T:
        call: Call = self._served.call
        seconds = self.timeout if timeout is None else timeout
        try:
            return super()._perform(command, call.patience(seconds), step)
        except BaseException:
            call.noticed()
            raise
