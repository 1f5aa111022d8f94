"""What systemd hears of the agent: datagrams at the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from qga.loop import Loop
from qga.service.service_manager import ServiceManager

Start = Callable[[Mapping[str, str]], ServiceManager]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        yield end


@pytest.fixture
def started() -> Iterator[Start]:
    """Makes service managers that are closed at the end."""
    with ExitStack() as cleanup:

        def start(environment: Mapping[str, str]) -> ServiceManager:
            manager = ServiceManager(environment)
            cleanup.callback(manager.close)
            return manager

        yield start


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def environment(listener: socket.socket, tmp_path: Path) -> dict[str, str]:
    listener.bind(str(tmp_path / "notify"))
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def test_it_hears_ready_status_and_stopping(
    started: Start, listener: socket.socket, environment: dict[str, str]
) -> None:
    manager = started(environment)
    manager.ready()
    manager.status("Serving /dev/ä")
    manager.status("Serving /dev/ä")
    manager.stopping()
    heard = [listener.recv(100).decode() for _ in range(3)]
    assert heard == ["READY=1", "STATUS=Serving /dev/ä", "STOPPING=1"]


def test_an_abstract_socket(started: Start, listener: socket.socket) -> None:
    name = f"qga-test-{os.getpid()}"
    listener.bind(f"\0{name}")
    started({"NOTIFY_SOCKET": f"@{name}"}).ready()
    assert listener.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_sent(started: Start, loop: Loop) -> None:
    manager = started({})
    manager.ready()
    manager.status("Serving")
    manager.keep_alive(loop)


def test_a_manager_that_is_gone_or_does_not_listen_stops_nothing(
    started: Start, listener: socket.socket, environment: dict[str, str]
) -> None:
    manager = started(environment)
    for number in range(2000):  # more than its queue takes
        manager.status(str(number))
    listener.close()
    manager.ready()


def test_the_loop_pings_twice_in_the_watchdogs_time(
    started: Start, loop: Loop, listener: socket.socket, environment: dict[str, str]
) -> None:
    pings = []

    def take(_events: int) -> None:
        pings.append(listener.recv(100))
        if len(pings) == 3:
            loop.stop()

    loop.watch(listener.fileno(), take)
    manager = started({**environment, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())})
    manager.keep_alive(loop)
    loop.run()
    assert pings == [b"WATCHDOG=1"] * 3


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}]
)
def test_without_a_watchdog_no_timer_runs(
    started: Start, loop: Loop, environment: dict[str, str], watchdog: dict[str, str]
) -> None:
    started({**environment, **watchdog}).keep_alive(loop)
    assert loop._time_to_next_timer() is None
