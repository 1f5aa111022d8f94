"""Which times guest-set-time takes, and what it sets: as QEMU's agent, which computes in C."""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from qga import QgaError
from tests.differences import differs

clock: Any = import_module("qga.commands.time")
SECOND = 10**9
HOUR = 3600 * SECOND
YEAR_2070 = 3_155_760_000 * SECOND


@pytest.fixture
def was_set(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the clock was set to; the machine's is left alone."""
    calls: list[int] = []
    monkeypatch.setattr(clock, "_set_clock", calls.append)
    monkeypatch.setattr(clock, "_RTC", "/nowhere")
    return calls


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour east of UTC in winter."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("given", "expected"),
    [(-1, 0), (-999, 0), (1, 0), (999, 0), (1000, 1000), (1999, 1000), (SECOND + 1, SECOND)],
)
def test_whole_microseconds(was_set: list[int], given: int, expected: int) -> None:
    clock.Time(None).guest_set_time(given)
    assert was_set == [expected]


def test_the_years_are_those_of_local_time(was_set: list[int], berlin: None) -> None:
    inside = [-HOUR, YEAR_2070 - HOUR - 1]
    for each in inside:
        clock.Time(None).guest_set_time(each)
    assert was_set == [-HOUR, (YEAR_2070 - HOUR - 1) // 1000 * 1000]
    for each in (-HOUR - SECOND, YEAR_2070 - HOUR, 2**63 - 1, -(2**63)):
        with pytest.raises(QgaError, match=r"^Invalid time$"):
            clock.Time(None).guest_set_time(each)


@differs("hardware-clock")
def test_the_hardware_clock_is_read_without_a_program(
    was_set: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = clock._RTC_TIME.pack(5, 4, 3, 2, 0, 126, 0, 0, 0)
    monkeypatch.setattr(clock, "_rtc_ioctl", lambda _request, _data: moment)
    monkeypatch.setattr(clock, "_rtc_is_local", lambda: False)
    clock.Time(None).guest_set_time()
    assert was_set == [timegm((2026, 1, 2, 3, 4, 5, 0, 0, 0)) * SECOND]
