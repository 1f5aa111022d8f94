"""Carrying out the same work for several guests in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, Union

from qga.client.agent import GuestAgent
from qga.client.hosts.discovery import FoundGuest
from qga.client.threads import beside

T = TypeVar("T")
K = TypeVar("K")

AnyGuest = Union[str, FoundGuest]

AT_ONCE = 16
"""Default number of guests to work on in parallel."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of the work for one guest: `value`, or the `error` that it raised."""

    guest: AnyGuest
    value: T | None = None
    error: Exception | None = None

    def result(self) -> T:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # without an error it is what work returned


def each(
    guests: Iterable[AnyGuest],
    work: Callable[[GuestAgent], T],
    *,
    at_once: int = AT_ONCE,
    timeout: float = 5.0,
) -> Iterator[Outcome[T]]:
    """Call `work` with the agent of each guest, and yield the outcomes in order of completion.

    `guests`: addresses, or the result of `find_guests`. `at_once`: how many run in parallel, each
    on a thread. `timeout`: as for GuestAgent. An error of one guest is part of its outcome and does
    not affect the others. If the iteration stops, no more work is started; running work is not
    interrupted. Raises ValueError if `at_once` is less than 1.

        for outcome in each(find_guests(), lambda agent: agent.osinfo().pretty_name):
            print(outcome.guest, outcome.error or outcome.value)
    """

    def connected(guest: AnyGuest) -> T:
        with GuestAgent(guest, timeout) as agent:
            return work(agent)

    tasks = ((guest, partial(connected, guest)) for guest in guests)
    return (outcome_of(guest, done) for guest, done in side_by_side(tasks, at_once))


def outcome_of(guest: AnyGuest, done: Future[T]) -> Outcome[T]:
    error = done.exception()
    if error is None:
        return Outcome(guest, done.result())
    if not isinstance(error, Exception):
        raise error
    return Outcome(guest, error=error)


def side_by_side(
    tasks: Iterable[tuple[K, Callable[[], T]]], at_once: int
) -> Iterator[tuple[K, Future[T]]]:
    """Run named tasks on threads, `at_once` in parallel; yields each with its future when done.

    Tasks are taken from the iterable one by one, when a thread is free. Raises ValueError if
    `at_once` is less than 1.
    """
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1, not {at_once}")
    return _side_by_side(iter(tasks), at_once)


def _side_by_side(
    tasks: Iterator[tuple[K, Callable[[], T]]], at_once: int
) -> Iterator[tuple[K, Future[T]]]:
    running: dict[Future[T], K] = {}
    for name, task in tasks:
        running[beside(task)] = name
        if len(running) == at_once:
            yield from _ended(running)
    while running:
        yield from _ended(running)


def _ended(running: dict[Future[T], K]) -> Iterator[tuple[K, Future[T]]]:
    """Wait until a task ends, and remove those that have."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future
