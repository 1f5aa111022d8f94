"""The same work for several guests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from qga.client.parallel import each, side_by_side


def test_as_many_run_at_once_as_are_allowed() -> None:
    counts: list[int] = []
    running, all_run = set[int](), threading.Event()

    def task(number: int) -> Callable[[], int]:
        def run() -> int:
            running.add(number)
            counts.append(len(running))
            if len(running) == 3:
                all_run.set()
            all_run.wait(10)
            running.discard(number)
            return number

        return run

    done = list(side_by_side(((number, task(number)) for number in range(9)), at_once=3))
    assert sorted((name, future.result()) for name, future in done) == [(n, n) for n in range(9)]
    assert max(counts) == 3


def test_results_come_in_order_of_completion() -> None:
    release = threading.Event()
    results = side_by_side([("slow", release.wait), ("fast", lambda: True)], at_once=2)
    assert next(results)[0] == "fast"
    release.set()
    assert next(results)[0] == "slow"


def test_nothing_more_starts_when_the_results_are_given_up() -> None:
    started: list[int] = []

    def task(number: int) -> Callable[[], None]:
        return lambda: started.append(number)

    results = side_by_side(((number, task(number)) for number in range(100)), at_once=1)
    next(results)
    results.close()  # type: ignore[attr-defined]
    time.sleep(0.05)
    assert started == [0]


def test_errors_are_those_of_one_guest() -> None:
    guests = ["unix:/nonexistent/a.sock", "nonsense:x"]
    outcomes = {str(outcome.guest): outcome for outcome in each(guests, lambda agent: agent.ping())}
    assert "No such file" in str(outcomes[guests[0]].error)
    assert isinstance(outcomes[guests[1]].error, ValueError)
    with pytest.raises(ValueError, match="not the address"):
        outcomes[guests[1]].result()


def test_at_least_one_at_once() -> None:
    with pytest.raises(ValueError, match="at_once must be at least 1, not 0"):
        each([], lambda agent: agent.ping(), at_once=0)


def test_a_thread_that_cannot_be_started_fails_its_own_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = threading.Thread.start, []

    def fail_second(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_second)
    tasks = [(name, lambda: "done") for name in ("a", "b", "c")]
    ended = dict(side_by_side(tasks, 3))
    assert [ended[name].result() for name in ("a", "c")] == ["done", "done"]
    with pytest.raises(BlockingIOError, match="can't start new thread"):
        ended["b"].result()
