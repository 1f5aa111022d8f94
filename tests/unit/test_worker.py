"""Jobs on threads, their ends on the loop."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from qga import QgaError
from qga.loop import Loop
from qga.worker import Worker

LOOP_THREAD = threading.main_thread()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


class Ends:
    """Notes what came of jobs; stops the loop after as many as are awaited."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.noted: list[tuple[Any, BaseException | None]] = []
        self.threads: set[threading.Thread] = set()
        self._awaited = 0

    def note(self, result: Any, error: BaseException | None) -> None:
        self.noted.append((result, error))
        self.threads.add(threading.current_thread())
        if len(self.noted) >= self._awaited:
            self._loop.stop()

    def wait_for(self, number: int) -> None:
        self._awaited = number
        if len(self.noted) < number:
            self._loop.run()


def test_a_job_runs_elsewhere_and_ends_on_the_loop(loop: Loop) -> None:
    ends = Ends(loop)
    Worker(loop).submit(threading.current_thread, ends.note)
    ends.wait_for(1)
    ((thread, error),) = ends.noted
    assert thread is not LOOP_THREAD
    assert thread.daemon
    assert error is None
    assert ends.threads == {LOOP_THREAD}


@pytest.mark.parametrize("error", [QgaError("no"), ValueError("x"), SystemExit(1)])
def test_what_a_job_raises_is_handed_over(loop: Loop, error: BaseException) -> None:
    def job() -> None:
        raise error

    ends = Ends(loop)
    some = Worker(loop)
    some.submit(job, ends.note)
    ends.wait_for(1)
    assert ends.noted == [(None, error)]
    some.submit(lambda: "next", ends.note)
    ends.wait_for(2)
    assert ends.noted[1] == ("next", None)


def test_one_thread_does_for_jobs_one_after_another(loop: Loop) -> None:
    ends = Ends(loop)
    some = Worker(loop)
    for number in range(1, 6):
        some.submit(threading.current_thread, ends.note)
        ends.wait_for(number)
    assert len({thread for thread, _ in ends.noted}) == 1


def test_a_job_that_hangs_holds_no_other_up(loop: Loop) -> None:
    ends, release = Ends(loop), threading.Event()
    some = Worker(loop)
    some.submit(release.wait, ends.note)
    some.submit(lambda: "quick", ends.note)
    ends.wait_for(1)
    assert ends.noted == [("quick", None)]
    release.set()
    ends.wait_for(2)
    assert ends.noted[1] == (True, None)


def test_beyond_a_number_of_threads_jobs_are_refused(loop: Loop) -> None:
    ends, release = Ends(loop), threading.Event()
    some = Worker(loop, max_threads=2)
    for _ in range(2):
        some.submit(release.wait, ends.note)
    with pytest.raises(QgaError, match=r"^2 commands are still running; try again"):
        some.submit(lambda: "refused", ends.note)
    release.set()
    ends.wait_for(2)
    some.submit(lambda: "accepted", ends.note)
    ends.wait_for(3)
    assert ends.noted[2] == ("accepted", None)


def test_an_idle_thread_holds_no_result(loop: Loop) -> None:
    class Big:
        pass

    references: list[weakref.ref[Big]] = []

    def done(result: Big, error: BaseException | None) -> None:
        references.append(weakref.ref(result))
        loop.stop()

    some = Worker(loop)
    some.submit(Big, done)
    loop.run()
    deadline = time.monotonic() + 5
    while references[0]() is not None:
        assert time.monotonic() < deadline
        gc.collect()


def test_what_is_urgent_finds_a_thread_although_others_hang(
    loop: Loop,
) -> None:
    ends, release = Ends(loop), threading.Event()
    some = Worker(loop, max_threads=1)
    some.submit(release.wait, ends.note)
    some.submit(lambda: "urgent", ends.note, urgent=True)
    ends.wait_for(1)
    assert ends.noted == [("urgent", None)]
    release.set()
    ends.wait_for(2)
