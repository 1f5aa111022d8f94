"""The queue of requests of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qga import CommandGroup, command
from qga.plugin.registry import Registry
from qga.serving.pending import MAX_INPUT, MAX_REQUESTS, Pending
from qga.wire.protocol import Request

if TYPE_CHECKING:
    from qga.wire.protocol import Event


class Some(CommandGroup):
    @command(overtakes=True)
    def qga_sync(self) -> None: ...

    @command()
    def qga_ping(self) -> None: ...


PING, SYNC = Request("qga-ping", {}, None), Request("qga-sync", {}, None)
UNKNOWN = Request("qga-unknown", {}, None)


@pytest.fixture
def pending() -> Pending:
    registry = Registry()
    registry.add(Some(None))  # type: ignore[arg-type]
    return Pending(registry)


def test_first_in_first_out(pending: Pending) -> None:
    events: list[Event] = [PING, UNKNOWN, SYNC]
    pending.add(events, 10)
    pending.add([PING], 5)
    assert (len(pending), pending.size) == (4, 15)
    assert [pending.take() for _ in range(4)] == [*events, PING]


def test_what_overtakes_is_known_until_it_is_taken(pending: Pending) -> None:
    pending.add([PING, UNKNOWN], 1)
    assert not pending.overtaking
    pending.add([SYNC, PING, SYNC], 1)
    expected = [True, True, True, True, False]
    assert [(pending.take(), pending.overtaking > 0)[1] for _ in range(5)] == expected


def test_what_is_overtaken_is_dropped(pending: Pending) -> None:
    pending.add([PING, UNKNOWN, SYNC, PING], 1)
    assert pending.drop_overtaken() == 2
    assert [pending.take(), pending.take()] == [SYNC, PING]


def test_nothing_more_is_read_beyond_a_number_of_requests(pending: Pending) -> None:
    pending.add([PING] * MAX_REQUESTS, 1)
    assert not pending.is_full(running=True)
    pending.add([PING], 1)
    assert pending.is_full(running=False)


def test_nothing_more_is_read_beyond_a_size_behind_a_running_command(pending: Pending) -> None:
    pending.add([PING], MAX_INPUT)
    assert not pending.is_full(running=True)
    pending.add([], 1)
    assert pending.is_full(running=True)
    assert not pending.is_full(running=False)
