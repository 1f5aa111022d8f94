"""Signals that are handled between two writes."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from qga.ctl.interrupts import deferred

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def raising() -> Any:
    before = {each: signal.signal(each, signal.default_int_handler) for each in NUMBERS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("raising")
def test_a_signal_waits_for_the_end() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), deferred(*NUMBERS):
        signal.raise_signal(signal.SIGTERM)
        done = True
    assert done
    assert {signal.getsignal(each) for each in NUMBERS} == {signal.default_int_handler}


@pytest.mark.usefixtures("raising")
def test_one_that_comes_before_the_beginning_leaves_all_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_handler = signal.signal

    def just_before(number: int, handler: Any) -> Any:
        if number == signal.SIGTERM:
            monkeypatch.undo()
            signal.raise_signal(number)
        return set_handler(number, handler)

    monkeypatch.setattr(signal, "signal", just_before)
    with pytest.raises(KeyboardInterrupt), deferred(*NUMBERS):
        pass
    assert {signal.getsignal(each) for each in NUMBERS} == {signal.default_int_handler}
