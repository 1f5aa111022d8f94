"""Waits that another thread interrupts: at once, only once, and never what ends something."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from qga.client import waits
from qga.client.threads import beside
from qga.client.waits import (
    Interrupt,
    Interrupted,
    Lock,
    pause,
    stop_if_interrupted,
    undisturbed,
    wait_for_events,
    wait_until,
)

PROMPT = 2.0
"""Seconds that an interrupted wait may still last here, where many tests run at once."""


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    with Interrupt() as interrupt:
        yield interrupt


def silence() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        wait_for_events(poll, time.monotonic() + 60, "silence")


def locked() -> None:
    lock = Lock()
    beside(lock.__enter__).result()
    with lock:
        pass


WAITS: list[Callable[[], object]] = [
    silence,
    locked,
    lambda: pause(60),
    lambda: wait_until(threading.Event().wait, 60),
]


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_ends_when_it_is_interrupted(
    interrupt: Interrupt, wait: Callable[[], object]
) -> None:
    call = beside(lambda: interrupt.carry_out(wait))
    time.sleep(0.05)
    interrupt.ask()
    with pytest.raises(Interrupted):
        call.result(PROMPT)


@pytest.mark.parametrize("wait", WAITS)
def test_a_call_that_was_interrupted_before_does_not_begin_to_wait(
    interrupt: Interrupt, wait: Callable[[], object]
) -> None:
    interrupt.ask()
    with pytest.raises(Interrupted):
        beside(lambda: interrupt.carry_out(wait)).result(PROMPT)


def test_it_is_interrupted_once_and_then_each_wait_is_short(
    interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "LAST_PATIENCE", 0.05)

    def call() -> str:
        with pytest.raises(Interrupted):
            pause(60)
        pause(60)
        stop_if_interrupted()
        with pytest.raises(TimeoutError, match="silence"):
            silence()
        return "cleaned up"

    interrupt.ask()
    assert beside(lambda: interrupt.carry_out(call)).result(PROMPT) == "cleaned up"


def test_what_ends_something_is_not_interrupted_but_the_next_wait_is(
    interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "LAST_PATIENCE", 0.05)
    entered, ended = threading.Event(), threading.Event()

    def call() -> None:
        with undisturbed():
            entered.set()
            with pytest.raises(TimeoutError, match="silence"):
                silence()  # begun before the interrupt, which shortens it
            ended.set()
        pause(60)

    outcome = beside(lambda: interrupt.carry_out(call))
    entered.wait()
    interrupt.ask()
    with pytest.raises(Interrupted):
        outcome.result(PROMPT)
    assert ended.is_set()


def test_data_that_comes_meanwhile_is_still_seen_where_nothing_disturbs(
    interrupt: Interrupt,
) -> None:
    ours, theirs = socket.socketpair()
    poll = select.poll()
    poll.register(ours, select.POLLIN)

    def call() -> int:
        with undisturbed():
            return wait_for_events(poll, time.monotonic() + 60, "silence")

    with ours, theirs:
        outcome = beside(lambda: interrupt.carry_out(call))
        interrupt.ask()
        time.sleep(0.05)
        theirs.send(b"x")
        assert outcome.result(PROMPT) == select.POLLIN


def test_a_thread_that_waits_for_the_lock_in_order_to_clean_up_gets_it(
    interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "LAST_PATIENCE", 0.01)
    lock, owned, given_up = Lock(), threading.Event(), threading.Event()

    def owner() -> None:
        with lock:
            owned.set()
            given_up.wait(PROMPT)

    def call() -> bool:
        with undisturbed(), lock:
            return given_up.is_set()

    beside(owner)
    owned.wait()
    interrupt.ask()
    outcome = beside(lambda: interrupt.carry_out(call))
    time.sleep(0.2)  # many times its patience
    given_up.set()
    assert outcome.result(PROMPT) is True


def test_an_interrupt_does_not_reach_the_next_call_of_its_thread(interrupt: Interrupt) -> None:
    def call() -> str:
        with pytest.raises(Interrupted):
            interrupt.carry_out(lambda: pause(60))
        pause(0.01)
        return "undisturbed"

    interrupt.ask()
    assert beside(call).result(PROMPT) == "undisturbed"
