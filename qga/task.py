"""A command on a worker thread, and how it learns that nobody waits for it any longer.

A connection gives up its command when the client has left, has sent a new sync, or was answered
because the time limit was over. A thread cannot be stopped from outside, so a handler that loops or
waits asks here, at a point where nothing is half done:

    for mount in until_given_up(mounts):     or     stop_if_given_up()

Both raise GivenUp, and do nothing on other threads. A handler that must not stop
half-way, such as a freeze, does not ask.
"""

from __future__ import annotations

from _thread import _local, allocate_lock

from qga.errors import QgaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Optional, TypeVar

    _T = TypeVar("_T")

INTERVAL = 1.0
"""Seconds between two such checks of a waiting handler."""


class GivenUp(QgaError):
    """Nobody waits for this command any longer."""

    def __init__(self) -> None:
        super().__init__("stopped: nobody waits for the reply any longer")


class Task:
    """One command in progress."""

    __slots__ = ("given_up",)

    def __init__(self) -> None:
        self.given_up = False


class _Here(_local):
    task: Optional[Task] = None


_here = _Here()


def begin(task: Task) -> None:
    """Set what this thread is working on, until the next call."""
    _here.task = task


def current() -> Task | None:
    """What this thread is working on; None on a thread that no worker started."""
    return _here.task


def stop_if_given_up() -> None:
    """Raise GivenUp when nobody waits for this thread's command any longer."""
    task = _here.task
    if task is not None and task.given_up:
        raise GivenUp


def until_given_up(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items as long as somebody waits for the reply, then raise GivenUp."""
    for item in items:
        stop_if_given_up()
        yield item


class Lock:
    """A lock for handlers. Waiting for it raises GivenUp once nobody waits for the handler."""

    def __init__(self) -> None:
        lock = allocate_lock()
        self.acquire, self.release = lock.acquire, lock.release

    def __enter__(self) -> None:
        if not self.acquire(False):  # nearly always free
            while not self.acquire(timeout=INTERVAL):
                stop_if_given_up()

    def __exit__(self, *_error: object) -> None:
        self.release()
