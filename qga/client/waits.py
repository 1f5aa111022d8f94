"""Where the host's side waits, so that AsyncGuestAgent can interrupt it.

A cancelled task interrupts the call that its thread carries out: the wait raises Interrupted, once.
It passes through the same `with` and `except BaseException` as any error, which end programs, close
files and thaw. What must stay true: whatever a call has begun in the guest can be ended afterwards.
So a request whose reply names something that stays in the guest is not interrupted, nor is anything
that ends or closes; see `undisturbed`. But from then on each wait is short, even in a guest that
does not answer.

Code that nobody can interrupt waits as usual.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

# poll(2) takes milliseconds as an int; longer waits are split.
LONGEST_POLL = 3600.0

# Seconds that each wait may last once the call is to end.
LAST_PATIENCE = 5.0

# Seconds between two looks at an interrupt where nothing has a descriptor to wait for.
SLICE = 0.05


class Interrupted(BaseException):
    """The call is to end. Not an Exception, so that no method handles it and carries on."""


class Interrupt:
    """Lets another thread interrupt the waits of a call, once. Use it as a context manager."""

    def __init__(self) -> None:
        self._woken, self._wake = os.pipe()
        self._undisturbed = 0
        self._raised = False
        self.asked = False

    def __enter__(self) -> Interrupt:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._woken)
        os.close(self._wake)

    def fileno(self) -> int:
        return self._woken

    def ask(self) -> None:
        """Interrupt the call, from another thread."""
        if not self.asked:
            self.asked = True
            os.write(self._wake, b"\0")

    def carry_out(self, call: Callable[[], T]) -> T:
        """Call `call` on this thread, whose waits can be interrupted meanwhile."""
        _here.interrupt = self
        try:
            return call()
        finally:
            _here.interrupt = None

    def check(self) -> None:
        if self.asked and not (self._raised or self._undisturbed):
            self._raised = True
            raise Interrupted

    def until(self, deadline: float) -> float:
        """The deadline of a wait that begins now."""
        return min(deadline, time.monotonic() + LAST_PATIENCE) if self.asked else deadline

    @contextmanager
    def put_off(self) -> Iterator[None]:
        self._undisturbed += 1
        try:
            yield
        finally:
            self._undisturbed -= 1

    @contextmanager
    def watched_by(self, poll: select.poll) -> Iterator[None]:
        """A context in which the poll reports the interrupt, if it has not come yet."""
        if not self.asked:
            poll.register(self, select.POLLIN)
        try:
            yield
        finally:
            with suppress(KeyError):
                poll.unregister(self)


class _Here(threading.local):
    """What may interrupt the calls of this thread."""

    interrupt: Interrupt | None = None


_here = _Here()


def stop_if_interrupted() -> None:
    """Raise Interrupted if this call is to end, and does not end already."""
    if _here.interrupt is not None:
        _here.interrupt.check()


@contextmanager
def undisturbed() -> Iterator[None]:
    """A context whose waits are not interrupted, but short once the call is to end."""
    if _here.interrupt is None:
        yield
        return
    with _here.interrupt.put_off():
        yield


def pause(seconds: float) -> None:
    """Sleep."""
    if _here.interrupt is None:
        time.sleep(seconds)
    else:
        events_of(select.poll(), time.monotonic() + seconds)


def wait_for_events(poll: select.poll, deadline: float, complaint: str) -> int:
    """Wait for events of the one descriptor in `poll`. Raises TimeoutError."""
    # A guest that never stops sending must not outlast the deadline.
    events = events_of(poll, deadline) if time.monotonic() < deadline else 0
    if not events:
        raise TimeoutError(complaint)
    return events


def events_of(poll: select.poll, deadline: float) -> int:
    """Wait for events of the one descriptor in `poll`, and look at least once; 0 for none."""
    interrupt = _here.interrupt
    if interrupt is None:
        return next(iter(_found(poll, deadline).values()), 0)
    interrupt.check()
    with interrupt.watched_by(poll):
        found = _found(poll, interrupt.until(deadline))
    interrupt.check()
    if found.pop(interrupt.fileno(), None) and not found:
        return events_of(poll, deadline)
    return next(iter(found.values()), 0)


def _found(poll: select.poll, deadline: float) -> dict[int, int]:
    while True:
        left = deadline - time.monotonic()
        found = poll.poll(max(0, min(left, LONGEST_POLL)) * 1000)
        if found or left <= 0:
            return dict(found)


def wait_until(happens: Callable[[float], bool], seconds: float) -> bool:
    """Wait by a function that is given seconds and returns whether it has happened by then."""
    deadline = time.monotonic() + seconds
    if _here.interrupt is not None:
        deadline = _here.interrupt.until(deadline)
    while True:
        stop_if_interrupted()
        longest = threading.TIMEOUT_MAX if _here.interrupt is None else SLICE
        if happens(max(0, min(deadline - time.monotonic(), longest))):
            return True
        if time.monotonic() >= deadline:
            return False


class Lock:
    """A reentrant lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        while not wait_until(lambda seconds: self._lock.acquire(timeout=seconds), math.inf):
            pass  # the call is to end, but what it ends needs the lock, too

    def __exit__(self, *_: object) -> None:
        self._lock.release()
