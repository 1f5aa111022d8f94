"""The loop: descriptors, timers, and calls from other threads."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from qga import loop as loop_module
from qga.loop import EDGES, READABLE, ROUND, Loop, Timer


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_readable_descriptor(loop: Loop, pipe: tuple[int, int]) -> None:
    seen = []

    def on_readable(events: int) -> None:
        seen.append((os.read(pipe[0], 10), bool(events & READABLE)))
        loop.stop()

    loop.watch(pipe[0], on_readable)
    os.write(pipe[1], b"x")
    loop.run()
    assert seen == [(b"x", True)]


def test_edges_are_reported_once(loop: Loop, pipe: tuple[int, int]) -> None:
    """A descriptor that stays readable wakes a loop that watches for edges once only."""
    edges: list[int] = []
    levels: list[int] = []
    again = os.dup(pipe[0])

    def on_level(events: int) -> None:
        levels.append(events)
        if len(levels) == 5:
            loop.stop()

    loop.watch(pipe[0], edges.append, EDGES)
    loop.watch(again, on_level)
    os.write(pipe[1], b"x")
    loop.run()
    loop.unwatch(again)
    os.close(again)
    assert len(edges) == 1


def test_an_unwatched_descriptor_is_not_reported(loop: Loop, pipe: tuple[int, int]) -> None:
    """Not even when its event came together with that of the one who unwatched it."""
    seen: list[str] = []
    other = os.dup(pipe[0])

    def one_of_two(name: str, mine: int, its: int) -> None:
        seen.append(name)
        loop.unwatch(its)
        loop.unwatch(mine)
        loop.stop()

    loop.watch(pipe[0], lambda _: one_of_two("first", pipe[0], other))
    loop.watch(other, lambda _: one_of_two("second", other, pipe[0]))
    os.write(pipe[1], b"x")
    loop.run()
    os.close(other)
    assert len(seen) == 1


def test_watching_for_something_else(loop: Loop, pipe: tuple[int, int]) -> None:
    seen = []

    def on_event(events: int) -> None:
        seen.append(events)
        loop.stop()

    loop.watch(pipe[1], on_event, 0)
    loop.call_later(0, loop.stop)
    loop.run()
    assert seen == []
    loop.rewatch(pipe[1], EDGES)
    loop.run()
    assert len(seen) == 1


def test_unwatching_twice_does_nothing(loop: Loop, pipe: tuple[int, int]) -> None:
    loop.watch(pipe[0], lambda _: None)
    loop.unwatch(pipe[0])
    loop.unwatch(pipe[0])


def test_timers_run_in_the_order_of_their_times(loop: Loop) -> None:
    seen: list[str] = []
    loop.call_later(0.02, loop.stop)
    loop.call_later(0.01, lambda: seen.append("later"))
    loop.call_later(0, lambda: seen.append("soon"))
    loop.run()
    assert seen == ["soon", "later"]


def test_a_cancelled_timer_does_nothing(loop: Loop) -> None:
    seen: list[str] = []
    timer = loop.call_later(0, lambda: seen.append("cancelled"))
    loop.call_later(0.001, loop.stop)
    timer.cancel()
    loop.run()
    assert seen == []


def test_a_timer_may_cancel_one_that_is_due(loop: Loop) -> None:
    seen: list[str] = []
    timers: list[Timer] = []

    def cancel_the_other() -> None:
        timers[0].cancel()

    loop.call_later(0, cancel_the_other)
    timers.append(loop.call_later(0, lambda: seen.append("cancelled")))
    loop.call_later(0.001, loop.stop)
    loop.run()
    assert seen == []


def test_a_timer_may_be_years_away(loop: Loop) -> None:
    loop.call_later(1e9, lambda: pytest.fail("so soon"))
    threading.Timer(0.05, loop.post, [loop.stop]).start()
    loop.run()


def test_without_timers_it_sleeps_without_an_end(loop: Loop) -> None:
    assert loop._time_to_next_timer() is None
    timer = loop.call_later(1000, loop.stop)
    assert 0 < (loop._time_to_next_timer() or 0) <= 1000
    timer.cancel()
    assert loop._time_to_next_timer() is None


def test_a_post_from_another_thread_runs_on_the_loop_s(loop: Loop) -> None:
    ran_on = []

    def note() -> None:
        ran_on.append(threading.current_thread())
        loop.stop()

    thread = threading.Thread(target=loop.post, args=(note,))
    thread.start()
    loop.run()
    thread.join()
    assert ran_on == [threading.current_thread()]


def test_a_post_that_does_not_wake_the_loop_runs_before_the_next_that_does(loop: Loop) -> None:
    seen: list[str] = []
    loop.post(lambda: seen.append("quiet"), wake=False)
    loop.call_later(0.05, lambda: loop.post(loop.stop))
    loop.call_later(0.02, lambda: seen.append("asleep"))
    loop.run()
    assert seen == ["asleep", "quiet"]


def test_posts_keep_their_order_also_when_there_are_very_many(loop: Loop) -> None:
    """The pipe that wakes the loop holds fewer bytes than there are posts."""
    seen: list[int] = []
    number = 70_000
    for at in range(number):
        loop.post(lambda at=at: seen.append(at))  # type: ignore[misc]
    loop.post(loop.stop)
    loop.run()
    assert seen == list(range(number))


def test_many_posts_that_take_their_time_do_not_keep_descriptors_waiting(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    """Such as those of a thousand connections that send more than one turn takes."""
    seen: list[object] = []

    def take_time(at: int) -> None:
        seen.append(at)
        if at == 0:
            os.write(pipe[1], b"x")
        end = time.monotonic() + 2 * ROUND
        while time.monotonic() < end:
            pass

    def on_readable(_events: int) -> None:
        os.read(pipe[0], 1)
        seen.append("event")

    loop.watch(pipe[0], on_readable)
    for at in range(5):
        loop.post(lambda at=at: take_time(at))  # type: ignore[misc]
    loop.post(loop.stop)
    loop.run()
    assert seen[:3] in ([0, "event", 1], [0, 1, "event"])
    assert [each for each in seen if each != "event"] == list(range(5))


def test_a_post_from_a_post_has_its_turn_after_descriptors(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    turns: list[str] = []

    def post_again() -> None:
        if not turns:
            os.write(pipe[1], b"x")
        turns.append("post")
        if len(turns) < 10:
            loop.post(post_again)
        else:
            loop.stop()

    def on_readable(_events: int) -> None:
        turns.append("read")
        loop.unwatch(pipe[0])

    loop.watch(pipe[0], on_readable)
    loop.post(post_again)
    loop.run()
    assert "read" in turns[:3]


def test_stopping_lets_the_events_at_hand_have_their_turn(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    seen: list[str] = []
    loop.watch(pipe[0], lambda _: seen.append("read"))
    os.write(pipe[1], b"x")
    loop.post(loop.stop)
    loop.run()
    assert seen == ["read"]


class ScarceEpoll:
    """As epoll(7) while `errors` last, for the kernel has no memory."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.epoll = select.epoll()

    def register(self, fd: int, events: int) -> None:
        if self.errors:
            raise OSError(self.errors.pop(0), "out of something")
        self.epoll.register(fd, events)

    def __getattr__(self, name: str) -> object:
        return getattr(self.epoll, name)


@pytest.fixture
def scarce(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> ScarceEpoll:
    """What the loop watches with."""
    monkeypatch.setattr(loop_module, "_RETRY_INTERVAL", 0.01)
    epoll = ScarceEpoll()
    loop._epoll.close()
    loop._epoll = epoll  # type: ignore[assignment]
    return epoll


def test_descriptors_that_the_kernel_has_no_memory_for_are_watched_later(
    loop: Loop, scarce: ScarceEpoll, pipe: tuple[int, int]
) -> None:
    """One that is never reported would be a listener that nobody reaches, or a program that never
    ends."""
    seen = []

    def on_event(fd: int) -> None:
        seen.append(fd)
        loop.unwatch(fd)
        if len(seen) == 2:
            loop.stop()

    scarce.errors = [errno.ENOMEM, errno.ENOSPC, errno.ENOMEM]
    os.write(pipe[1], b"x")
    loop.watch(pipe[0], lambda _: on_event(pipe[0]))
    loop.watch(pipe[1], lambda _: on_event(pipe[1]), 0)
    loop.rewatch(pipe[1], EDGES)
    loop.call_later(5, loop.stop)
    loop.run()
    assert sorted(seen) == sorted(pipe)


def test_one_that_is_unwatched_before_is_not_watched_later(
    loop: Loop, scarce: ScarceEpoll, pipe: tuple[int, int]
) -> None:
    seen: list[int] = []
    scarce.errors = [errno.ENOMEM]
    os.write(pipe[1], b"x")
    loop.watch(pipe[0], seen.append)
    loop.unwatch(pipe[0])
    loop.call_later(0.05, loop.stop)
    loop.run()
    assert seen == []


def test_there_is_one_retry_however_often_descriptors_come_and_go(
    loop: Loop, scarce: ScarceEpoll, pipe: tuple[int, int]
) -> None:
    scarce.errors = [errno.ENOMEM] * 1000
    for _ in range(10):
        loop.watch(pipe[0], lambda _: None)
        loop.unwatch(pipe[0])
    assert loop._time_to_next_timer() is None
    loop.watch(pipe[0], lambda _: None)
    loop.watch(pipe[1], lambda _: None)
    loop.call_later(0.1, loop.stop)
    loop.run()
    assert len([timer for timer in loop._timers if timer.callback]) == 1


def test_one_that_cannot_be_watched_later_does_not_keep_others_from_it(
    scarce: ScarceEpoll, loop: Loop, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr(loop, "_on_fault", faults.append)
    scarce.errors = [errno.ENOMEM] * 2
    gone = os.dup(pipe[0])
    os.write(pipe[1], b"x")
    loop.watch(gone, lambda _: None)
    loop.watch(pipe[0], lambda _: loop.stop())
    os.close(gone)
    deadline = loop.call_later(5, lambda: pytest.fail("it was never watched"))
    loop.run()
    deadline.cancel()
    assert [type(fault) for fault in faults] == [OSError]
    loop.unwatch(gone)


def test_what_can_never_be_watched_is_an_error(loop: Loop, scarce: ScarceEpoll) -> None:
    scarce.errors = [errno.EPERM]
    with pytest.raises(PermissionError):
        loop.watch(0, lambda _: None)


def test_a_callback_that_fails_stops_neither_the_loop_nor_others() -> None:
    faults: list[Exception] = []
    loop = Loop(faults.append)
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")

    def fail(_events: int = 0) -> None:
        raise ValueError("of the callback")

    loop.watch(read_end, fail)
    loop.post(fail)
    loop.call_later(0, fail)
    loop.call_later(0.05, loop.stop)
    loop.run()
    assert [str(fault) for fault in faults] == ["of the callback"] * 3
    os.close(read_end)
    os.close(write_end)
    loop.close()


def test_a_wake_up_that_somebody_else_has_read_is_one_all_the_same() -> None:
    loop = Loop()
    done: list[str] = []

    def finish() -> None:
        done.append("finished")
        loop.stop()

    def post_and_steal() -> None:
        loop.post(finish)
        os.read(loop._wake_read, 1)
        loop._run_posts(0)

    loop.call_later(0, post_and_steal)
    loop.run()
    assert done == ["finished"]
    loop.close()


def test_what_is_posted_to_a_closed_loop_reaches_no_descriptor() -> None:
    loop = Loop()
    loop.close()
    ends = [*socket.socketpair(), *socket.socketpair()]  # with the numbers that the loop had
    loop.post(lambda: None)
    for end in ends:
        end.setblocking(False)
        with pytest.raises(BlockingIOError):
            end.recv(1)
    for end in ends:
        end.close()


def test_with_an_alarm_the_loop_sleeps_without_a_time_limit(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    """One alarm for each timer that is the next one, and not for each turn of the loop."""
    alarms: list[float] = []
    done: list[str] = []

    def set_alarm(seconds: float) -> None:
        alarms.append(seconds)
        threading.Timer(seconds, os.write, (pipe[1], b"!")).start()

    def on_alarm(_events: int) -> None:
        os.read(pipe[0], 1)
        loop.alarm_rang()

    loop.watch(pipe[0], on_alarm)
    loop.use_alarm(set_alarm)
    loop.call_later(0.2, lambda: done.append("later"))
    loop.call_later(0.2, loop.stop)
    loop.call_later(0.05, lambda: done.append("sooner"))
    for _ in range(3):
        loop.post(lambda: None)
    loop.run()
    assert done == ["sooner", "later"]
    assert len(alarms) <= 3


def test_an_alarm_that_rings_too_early_is_set_again(loop: Loop, pipe: tuple[int, int]) -> None:
    alarms: list[float] = []

    def set_alarm(seconds: float) -> None:
        alarms.append(seconds)
        os.write(pipe[1], b"!")

    def on_alarm(_events: int) -> None:
        os.read(pipe[0], 1)
        loop.alarm_rang()

    loop.watch(pipe[0], on_alarm)
    loop.use_alarm(set_alarm)
    loop.call_later(0.05, loop.stop)
    loop.run()
    assert len(alarms) > 1


def test_a_timer_runs_though_somebody_else_has_read_the_alarm(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    done: list[str] = []
    loop.use_alarm(lambda _seconds: None)
    loop.watch(pipe[0], lambda _events: None)
    loop.call_later(0.05, lambda: done.append("timer"))
    threading.Timer(0.1, os.write, (pipe[1], b"!")).start()  # any event
    threading.Timer(0.2, loop.post, (loop.stop,)).start()
    loop.run()
    assert done == ["timer"]
