"""What one guest can do to the metrics of all, and to the exporter's log."""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from qga.client.errors import AgentError, AgentTimeout
from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.handler import Handler
from qga.client.monitoring.metrics import METRICS, Readings
from qga.client.monitoring.prometheus import (
    DURATION,
    LEFT_OUT,
    MEMORY,
    MOST_CLIENTS,
    UP,
    Admission,
    GuestCollector,
    Server,
)
from qga.client.monitoring.watch import Sighting, Target, Watcher
from qga.ctl.exporter import LONGEST_REASON, Reporter
from tests.unit.client_peer import Peer

module: Any = import_module("qga.commands.metrics")

MOST = 100


def inventive() -> Callable[[Any], Any]:
    """A guest that has other network interfaces whenever it is asked."""
    names = itertools.count()

    def metrics(_arguments: Any) -> Any:
        links = [{"name": f'x{next(names)}\n"}} 1\n', "rx-bytes": 1} for _ in range(2000)]
        return {**module.Metrics(None).qga_get_metrics(), "network": links}

    return metrics


def scrape(collector: GuestCollector) -> dict[tuple[str, ...], float]:
    """The samples by their names and labels, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(collector)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_guest_has_so_many_series_however_it_names_them(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "s", {"qga-get-metrics": inventive()})
    told: list[int] = []
    watcher = Watcher(lambda: [Target("web", peer.address)], 30)
    collector = GuestCollector(watcher, lambda shown: told.extend(n for _, n in shown), MOST)
    own = {f"qga_{metric.name}" for metric in (UP, DURATION, LEFT_OUT)}
    series: set[tuple[str, ...]] = set()
    try:
        for _ in range(3):
            samples = scrape(collector)
            assert samples[("qga_series_left_out", "web")] > 900
            assert ("qga_uptime_seconds", "web") in samples
            series |= {key for key in samples if key[0] not in own}
    finally:
        peer.close()
    assert 0 < len(series) <= MOST
    assert len(told) == 3
    assert min(told) > 900


def test_series_that_are_gone_make_room_in_time() -> None:
    admission = Admission(2)

    def shown(now: float, *names: str) -> set[str]:
        admission.forget(now)
        readings: Readings = {("load1", name): 1.0 for name in names}
        return {key[1] for key in admission.admit("web", readings, now)}

    assert shown(0, "a", "b", "c") == {"a", "b"}
    assert shown(1, "b", "c") == {"b"}
    assert shown(MEMORY + 0.5, "b", "c") == {"b", "c"}
    assert shown(MEMORY + 1, "a") == set()
    admission.forget(3 * MEMORY)
    assert not admission._seen


@pytest.mark.parametrize("name", ["\udcff", "a\nb", '"', "\\", "x" * 10_000])
def test_names_of_all_kinds(name: str) -> None:
    collector = GuestCollector(seen(Target(name, "unix:/nonexistent")), lambda _: None, MOST)
    (guest,) = {key[1] for key in scrape(collector)}
    assert guest == name.encode("utf-8", "backslashreplace").decode()


def seen(*targets: Target) -> Watcher:
    return Watcher(lambda: targets, 5)


def sighting(name: str, error: str = "", cause: AgentError | None = None) -> Sighting:
    readings: Readings | None = None if error else {("load1",): 1.0}
    return Sighting(Target(name, "unix:/x"), 0.0, 0.0, readings, error, cause)


def test_a_line_for_each_change_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter()
    for seconds in range(10):
        late = AgentTimeout("unix:/x", "guest-ping", seconds, "no answer")
        report.seen([(sighting("web", str(late), late), 0), (sighting("db"), 0)])
    for number in range(10):
        report.seen([(sighting("web", f"'{number}' is no possible number"), 0)])
    assert lines(capsys) == ["qgactl: web: does not answer in time"]
    report.seen([(sighting("web"), 7)])
    report.seen([(sighting("web"), 9)])
    assert lines(capsys) == [
        "qgactl: web: answers again",
        "qgactl: web: has too many series; those beyond --series are left out",
    ]


class Shared(set[str]):
    """A set from which another thread drops what has just been seen in it."""

    def __contains__(self, name: object) -> bool:
        found = super().__contains__(name)
        self.clear()
        return found


def test_a_guest_that_is_gone_may_answer_again_meanwhile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Reporter()
    report._silent = Shared({"web"})
    report.seen([(sighting("web"), 0)])
    assert lines(capsys) == ["qgactl: web: answers again"]


def test_what_a_guest_says_is_reported_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().seen([(sighting("web", "\n" * 100_000), 0)])
    (line,) = lines(capsys)
    assert len(line) < 3 * LONGEST_REASON


def test_guests_that_are_gone_are_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter()
    for number in range(50):
        seen = sighting(f"web{number}", "gone")
        report.found(lambda _left_out, seen=seen: [seen.target])
        report.seen([(seen, 5)])
    assert len(report._silent) == len(report._cut) == 1
    capsys.readouterr()


def test_what_is_left_out_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter()

    def find(left_out: LeftOut) -> list[Target]:
        for number in range(300):
            left_out.add("run by others", f"process {time.monotonic_ns()}.{number}")
        return []

    for _ in range(10):
        report.found(find)
    assert len(lines(capsys)) == 1


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@contextmanager
def served(collector: GuestCollector | None = None) -> Iterator[Server]:
    collector = collector or GuestCollector(seen(), lambda _: None, MOST)
    with Server("127.0.0.1", 0, collector) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_clients_that_say_nothing_or_leave_are_no_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with served() as server:
        place = ("127.0.0.1", server.server_port)
        with socket.create_connection(place, timeout=30) as silent:
            assert silent.recv(1) == b""
        with socket.create_connection(place) as leaving:
            leaving.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *[0] * 7]))
        time.sleep(0.5)
    assert capsys.readouterr().err == ""


def test_a_client_has_a_deadline_for_all_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "timeout", 1)
    with served() as server:
        place = ("127.0.0.1", server.server_port)
        with socket.create_connection(place, timeout=30) as client:
            deadline = time.monotonic() + 10
            while not select.select([client], [], [], 0.1)[0]:
                assert time.monotonic() < deadline
                client.sendall(b"x")


def test_a_fault_is_the_answer_to_that_scrape_only(capsys: pytest.CaptureFixture[str]) -> None:
    def find() -> list[Target]:
        raise OSError("no more descriptors")

    collector = GuestCollector(Watcher(find, 5), lambda _: None, MOST)
    with served(collector) as server:
        place = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(urllib.error.HTTPError, match="500") as caught:
            urllib.request.urlopen(f"{place}/metrics", timeout=30)
        assert caught.value.read() == b"no more descriptors\n"
        with urllib.request.urlopen(place, timeout=30) as page:
            assert page.status == 200
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *(("guest=", 404), ("guest", 404), ("guest=nobody", 404), ("guest=web&guest=", 400)),
        *(("name[]=qga_up", 400), ("name%5B%5D=qga_up&guest=web", 400), ("name[]=", 400)),
    ],
)
def test_a_question_that_is_not_for_all_guests_is_not_answered_with_all(
    query: str, status: int
) -> None:
    guest = Target("web", "unix:/nonexistent")
    with (
        served(GuestCollector(seen(guest), lambda _: None, MOST)) as server,
        pytest.raises(urllib.error.HTTPError, match=str(status)),
    ):
        place = f"http://127.0.0.1:{server.server_port}"
        urllib.request.urlopen(f"{place}/metrics?{query}", timeout=30)


def test_a_client_that_stops_reading_is_no_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Handler, "timeout", 0.2)
    guests = [Target(f"{number}{'x' * 5000}", "unix:/nonexistent") for number in range(500)]
    with served(GuestCollector(seen(*guests), lambda _: None, MOST)) as server:
        place = ("127.0.0.1", server.server_port)
        with socket.create_connection(place, timeout=30) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            time.sleep(3)
    assert capsys.readouterr().err == ""


def test_there_are_so_many_clients_at_a_time() -> None:
    with served() as server:
        place = ("127.0.0.1", server.server_port)
        clients = [socket.create_connection(place, timeout=30) for _ in range(MOST_CLIENTS)]
        with socket.create_connection(place, timeout=30) as another:
            assert another.recv(1) == b""
        for client in clients:
            client.close()
        deadline = time.monotonic() + 30
        answer = b""
        while not answer and time.monotonic() < deadline:
            with socket.create_connection(place, timeout=30) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                try:
                    answer = client.recv(100)
                except ConnectionResetError:
                    pass
        assert b"200 OK" in answer


def test_a_client_without_a_thread_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    with served() as server:
        place = ("127.0.0.1", server.server_port)
        with monkeypatch.context() as without_threads:
            without_threads.setattr(Thread, "start", start)
            for _ in range(MOST_CLIENTS + 1):
                with socket.create_connection(place, timeout=30) as client:
                    assert client.recv(1) == b""
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}", timeout=30) as page:
            assert page.status == 200


def test_a_guest_without_a_thread_is_not_asked_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets one at the next scrape."""
    peer = Peer(tmp_path / "s", {"qga-get-metrics": inventive()})
    watcher = seen(Target("first", peer.address), Target("second", peer.address))
    start, refused = Thread.start, iter([1])

    def start_or_not(thread: Thread) -> None:
        if next(refused, None):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(Thread, "start", start_or_not)
    try:
        first, second = watcher.look()
        again, _ = watcher.look()
    finally:
        peer.close()
    assert (first.readings, first.error) == (None, f"{peer.address}: can't start new thread")
    assert second.readings
    assert again.readings


def test_without_descriptors_a_connection_waits_until_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not tried to accept it again and again, which would take all of a processor."""
    calls: list[int] = []
    accept = WSGIServer.get_request

    def get_request(server: WSGIServer) -> Any:
        calls.append(1)
        if time.monotonic() < free:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(server)

    monkeypatch.setattr(WSGIServer, "get_request", get_request)
    free = time.monotonic() + 1
    with served() as server:
        place = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(place, timeout=30) as page:
            assert page.status == 200
    assert len(calls) < 100


def test_help_is_one_line_without_what_a_guest_says() -> None:
    for metric in (UP, DURATION, LEFT_OUT, *METRICS):
        assert metric.help.isprintable()
