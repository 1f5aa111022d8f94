"""Jobs run on threads and finish on the loop."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from qga import QgaError, stop_if_given_up, until_given_up
from qga.loop import Loop
from qga.task import GivenUp, Lock
from qga.worker import MAX_URGENT, Worker

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
def test_what_a_job_raises_is_passed_on(loop: Loop, error: BaseException) -> None:
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


class Hanging:
    """Jobs of several channels, which hang until they are released."""

    def __init__(self, loop: Loop, threads: int, channels: int) -> None:
        self.ends, self.release = Ends(loop), threading.Event()
        self.worker = Worker(loop, threads, channels)
        self.started = 0

    def start(self, channel: str, urgent: bool = False) -> bool:
        """Whether there was a thread for it."""
        try:
            self.worker.submit(self.release.wait, self.ends.note, urgent=urgent, channel=channel)
        except QgaError:
            return False
        self.started += 1
        return True

    def end(self) -> None:
        self.release.set()
        self.ends.wait_for(self.started)


@pytest.mark.parametrize(
    ("threads", "channels", "first", "others"),
    [
        (8, 1, 8, []),
        (8, 2, 6, [2]),
        (64, 4, 40, [8, 8, 8]),
        (4, 4, 1, [1, 1, 1]),
        (1, 3, 1, [1, 1]),
        (5, 2, 4, [1]),
    ],
)
def test_each_channel_has_a_share(
    loop: Loop, threads: int, channels: int, first: int, others: list[int]
) -> None:
    jobs = Hanging(loop, threads, channels)
    assert sum(jobs.start("greedy") for _ in range(2 * threads)) == first
    for number, count in enumerate(others):
        assert sum(jobs.start(f"other {number}") for _ in range(2 * threads)) == count
    jobs.end()
    assert jobs.start("greedy"), "what has ended gives its thread back"
    jobs.end()


def test_the_reserve_is_never_lent(loop: Loop) -> None:
    """Its threads were for whoever came first once a thaw had started them."""
    jobs = Hanging(loop, 2, 2)
    assert [jobs.start("a") for _ in range(2)] == [True, False]
    assert [jobs.start("a", urgent=True) for _ in range(MAX_URGENT + 1)] == [True] * MAX_URGENT + [
        False
    ]
    jobs.end()
    jobs.release.clear()
    assert [jobs.start("a") for _ in range(2)] == [True, False]
    assert jobs.start("a", urgent=True)
    assert jobs.start("b", urgent=True), "a thaw of another channel"
    assert sum(jobs.start("b", urgent=True) for _ in range(2 * MAX_URGENT)) == MAX_URGENT
    jobs.end()


def test_a_job_learns_that_it_was_given_up(loop: Loop) -> None:
    ends, started = Ends(loop), threading.Event()

    def job() -> None:
        for _ in until_given_up(itertools.repeat(None)):
            started.set()

    some = Worker(loop)
    task = some.submit(job, ends.note)
    assert started.wait(5)
    task.given_up = True
    ends.wait_for(1)
    ((result, error),) = ends.noted
    assert (result, type(error)) == (None, GivenUp)
    some.submit(stop_if_given_up, ends.note)
    ends.wait_for(2)
    assert ends.noted[1] == (None, None), "that was the task's, not the thread's"
    stop_if_given_up()
    assert list(until_given_up("ab")) == ["a", "b"]


def test_waiting_for_a_lock_is_given_up(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qga.task.INTERVAL", 0.01)
    ends, lock = Ends(loop), Lock()

    def job() -> None:
        with lock:
            pass

    with lock:
        task = Worker(loop).submit(job, ends.note)
        task.given_up = True
        ends.wait_for(1)
    assert type(ends.noted[0][1]) is GivenUp
    assert lock.acquire(blocking=False)


def test_a_thread_that_the_system_refuses_is_an_error_in_words(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever asks for a thaw tries again, as for busy threads."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ends, worker = Ends(loop), Worker(loop, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3 * MAX_URGENT):
            with pytest.raises(
                QgaError, match="cannot start a thread: the system limit is reached"
            ):
                worker.submit(list, ends.note, urgent=True)
    worker.submit(list, ends.note)
    ends.wait_for(1)
    assert ends.noted == [([], None)]
