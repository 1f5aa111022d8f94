"""What hosts wait for, and lines of events that a guest sends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qga.client import waiting, watching
from qga.client.conditions import CHECKS, Never
from qga.client.conversion import converted
from qga.client.data_ports import DataPort
from qga.client.errors import (
    LONGEST_ERROR,
    CommandNotFound,
    ConnectError,
    NeverReady,
    NotReady,
    ProtocolError,
)
from qga.client.readiness import Boot, CloudInit, Readiness, Unit
from qga.client.results import PortInfo
from qga.ctl.readiness import reporter


@pytest.mark.parametrize(
    ("text", "kind", "argument"),
    [
        ("agent", "agent", ""),
        ("unit:ssh.service", "unit", "ssh.service"),
        ("unit:-.mount", "unit", "-.mount"),
        ("unit:dev-disk-by\\x2did.device", "unit", "dev-disk-by\\x2did.device"),
        ("port:443", "port", "443"),
        ("file:/a:b", "file", "/a:b"),
        ("file:C:\\ready.txt", "file", "C:\\ready.txt"),
        ("file:d:/ready.txt", "file", "d:/ready.txt"),
    ],
)
def test_conditions(text: str, kind: str, argument: str) -> None:
    assert waiting.parse(text) == (text, kind, argument)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected: agent, boot"),
        ("rain", "expected: agent, boot"),
        ("boot:", "expected: boot"),
        ("boot:x", "expected: boot"),
        ("unit", "expected: unit:NAME"),
        ("unit:--now", "the name of a unit"),
        ("unit:ssh*", "the name of a unit"),
        ("port:0", "a number from 1 to 65535"),
        ("port:65536", "a number from 1 to 65535"),
        ("port:ssh", "a number from 1 to 65535"),
        ("file:", "expected: file:PATH"),
        ("file:ready", "an absolute path"),
        ("file:C:ready", "an absolute path"),
    ],
)
def test_an_unknown_condition_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        waiting.parse(text)


class StandIn:
    """An agent that says of itself what `states` has, one after the other; the last one stays.

    A state may be an error to raise.
    """

    address, timeout = "unix:/web", 5.0

    def __init__(self, *states: Any) -> None:
        self.states = list(states)
        self.closed = 0

    def sync(self, *, timeout: float) -> None:
        assert 0 < timeout <= self.timeout
        if isinstance(self.states[0], ConnectError):
            raise self._next()

    def readiness(self, _units: object, _ports: object, *, timeout: float) -> Readiness:
        state = self._next()
        if isinstance(state, Exception):
            raise state
        return Readiness(1000, state, ())

    def close(self) -> None:
        self.closed += 1

    def _next(self) -> Any:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The clock stands still but for the pauses."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    yield slept


def wait_for(agent: Any, *conditions: str, timeout: float = 100) -> tuple[Any, list[str]]:
    reports: list[str] = []
    met = waiting.wait_for(agent, conditions, timeout, lambda _, why: reports.append(why))
    return met, reports


STARTING = Boot("systemd", False, "starting", 14)


def test_a_guest_that_is_not_there_yet(pauses: list[float]) -> None:
    absent = ConnectError("unix:/web", "No such file")
    agent = StandIn(
        absent, absent, STARTING, STARTING._replace(jobs=1), Boot("systemd", True, "running", 0)
    )
    [met], reports = wait_for(agent, "boot")
    assert reports == ["No such file", "starting, 14 jobs left", "starting, 1 job left"]
    assert (met.condition, met.detail) == ("boot", "running")
    assert met.seconds == pytest.approx(sum(pauses), abs=0.001)
    assert pauses == sorted(pauses)
    assert agent.closed == len(pauses)


def test_a_timeout_reports_what_is_missing(pauses: list[float]) -> None:
    with pytest.raises(
        NotReady, match=r"timed out after 7 s: boot: starting, 14 jobs left"
    ) as caught:
        wait_for(StandIn(STARTING), "agent", "boot", timeout=7)
    assert [each.condition for each in caught.value.met] == ["agent"]
    assert sum(pauses) == pytest.approx(7)
    assert max(pauses) <= waiting.LONGEST_PAUSE


@pytest.mark.usefixtures("pauses")
def test_what_several_conditions_wait_for_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    absent: Any = StandIn(ConnectError("unix:/web", "No such file: is the guest running?"))
    absent.typed = "web"
    conditions = ("boot", "address", "port:22")
    with pytest.raises(NotReady) as caught:
        waiting.wait_for(absent, conditions, 7, reporter(absent))
    assert caught.value.reason == (
        "timed out after 7 s: boot, address, port:22: No such file: is the guest running?"
    )
    assert list(caught.value.missing) == list(conditions)
    assert capsys.readouterr().err.splitlines() == [
        "qgactl: web: waiting for boot: No such file: is the guest running?",
        "qgactl: web: waiting for address: as for boot",
        "qgactl: web: waiting for port:22: as for boot",
    ]


@pytest.mark.usefixtures("pauses")
def test_a_boot_whose_end_is_unknown() -> None:
    with pytest.raises(NeverReady, match="openrc does not report the end of the boot"):
        wait_for(StandIn(Boot("openrc")), "boot")
    unknown = Boot("systemd", reason="systemctl did not answer")
    _, reports = wait_for(StandIn(unknown, Boot("systemd", True, "running")), "boot")
    assert reports == ["systemctl did not answer"]


@pytest.mark.parametrize(
    ("unit", "detail"),
    [
        (Unit("x", "inactive", "dead", "not-found"), "inactive (dead), not-found"),
        (Unit("x", "inactive", "dead", "masked"), "inactive (dead), masked"),
        (Unit("x", "inactive", "dead", "loaded"), "inactive (dead)"),
        (Unit("x", "inactive", "dead"), "inactive (dead)"),
    ],
)
def test_a_unit_that_is_not_loaded_is_reported_as_such(unit: Unit, detail: str) -> None:
    """It may be installed meanwhile; a misspelt one never is."""
    state = Readiness(5, Boot("systemd"), (), units=(unit,))
    agent: Any = StandIn()
    assert CHECKS["unit"](agent, "x", state) == (False, detail)


def test_replies_of_the_agent_have_their_types() -> None:
    reply = {
        "uptime-ms": 5,
        "boot": {"manager": "systemd", "finished": True, "state": "running", "jobs": 0},
        "addresses": [{"interface": "eth0", "address": "192.0.2.7", "prefix": 24}],
        "failed-units": ["x.service"],
        "cloud-init": {"state": "error", "errors": ["no"]},
        "units": [
            {"name": "x", "state": "active", "sub-state": "running"},  # of 0.2.0
            {"name": "y", "state": "inactive", "sub-state": "dead", "load-state": "masked"},
        ],
        "listening": [22],
    }
    found = converted(Readiness, reply)
    assert found.failed_units == ("x.service",)
    assert found.cloud_init == CloudInit("error", "", ("no",))
    assert found.units == (
        Unit("x", "active", "running"),
        Unit("y", "inactive", "dead", "masked"),
    )
    assert found.addresses[0].address == "192.0.2.7"
    with pytest.raises(ProtocolError):
        converted(Readiness, {**reply, "listening": ["22"]})


LINE = {"event": "address-added", "time-ms": 1500, "address": "192.0.2.7"}


def test_a_line_is_an_event() -> None:
    event = watching._event_of(json.dumps(LINE).encode())
    assert event.as_line() == LINE
    assert event == ("address-added", 1.5, {"address": "192.0.2.7"})


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[1]",
        b"\xff",
        b'{"event":"x"}',
        b'{"event":1,"time-ms":1}',
        b'{"event":"x","time-ms":1.5}',
        b'{"event":"x","time-ms":true}',
        b'{"event":"x","time-ms":-1}',
        b'{"event":"x","time-ms":' + b"9" * 400 + b"}",
        b'{"event":"x","time-ms":1,"n":NaN}',
        b'{"event":"x","time-ms":1,"n":1e999}',
        b"[" * 100_000,
    ],
)
def test_invalid_lines_are_protocol_errors(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        watching._event_of(line)


class Ports:
    """One free port, whose guest's end is `guest`."""

    def __init__(self) -> None:
        self.guest, self.host = socket.socketpair()

    def open_free(self, _agent: object) -> DataPort:
        return DataPort("org.qga.data.0", self.host)


class Watched(StandIn):
    """An agent that watches: `begin` sends what it does."""

    def __init__(self, begin: Callable[[], object]) -> None:
        super().__init__()
        self.begin = begin
        self.started_ms = 1500

    def watch_start(self, _port: str, *_wanted: object) -> watching.WatchStarted:
        self.begin()
        return watching.WatchStarted(7, ("address",), self.started_ms)


@pytest.fixture
def ports() -> Iterator[Ports]:
    made = Ports()
    yield made
    made.guest.close()
    made.host.close()


def line(**members: Any) -> bytes:
    return json.dumps({"event": "watching", "time-ms": 1, **members}).encode() + b"\n"


def events_of(ports: Ports, *sent: bytes) -> watching.Events:
    agent: Any = Watched(lambda: ports.guest.sendall(b"".join(sent)))
    return watching.Events(agent, ports, watching.Wanted())  # type: ignore[arg-type]


class NoPorts:
    def open_free(self, _agent: object) -> None:
        return None


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ([], "this guest has neither: `qgactl channel --data` shows how to add one"),
        ([PortInfo("org.qga.data.0", "/dev/vport1p2", True, False)], "are in use"),
        ([PortInfo("org.qga.data.0", "/dev/vport1p2", False, True)], "are in use"),
        (
            [PortInfo("org.qga.data.0", "/dev/vport1p2", False, False)],
            "--data-port org.qga",
        ),
        ([PortInfo("org.qemu.guest_agent.0", "/dev/vport1p1", True, True)], "has neither"),
    ],
)
def test_a_guest_without_a_free_port_says_what_to_add(there: list[PortInfo], reason: str) -> None:
    agent: Any = Watched(lambda: None)
    agent.ports, agent.sync = (lambda: there), (lambda: None)
    events = watching.Events(agent, NoPorts(), watching.Wanted())  # type: ignore[arg-type]
    with pytest.raises(ConnectError, match=reason), events:
        pass


def test_lines_left_by_an_earlier_user_of_the_port_are_dropped(ports: Ports) -> None:
    left = b'half a line\n{"event":"watching","time-ms":1,"watch":6}\n'
    with events_of(ports, left, line(watch=7), line(event="frozen")) as events:
        event = events.next(5)
        assert event
        assert event.name == "frozen"
        assert events.next(0) is None


def test_a_watch_is_restarted_on_a_closed_port(ports: Ports) -> None:
    with events_of(ports, line(watch=7), line(event="frozen")) as events:
        assert events.next(5)
        ports.guest.close()
        lost = events.next(5)
        assert lost
        assert lost.name == "agent-lost"
        ports.__init__()  # type: ignore[misc]
        again = events.next(5)
        assert again
        assert again.name == "frozen"


def test_a_new_agent_is_an_event(ports: Ports) -> None:
    stopped = b'{"event":"agent-stopped","time-ms":1}\n'
    with events_of(ports, line(watch=7), stopped) as events:
        assert events.next(5) == ("agent-stopped", 0.001, {})
        ports.guest.close()
        ports.__init__()  # type: ignore[misc]
        events._agent.started_ms += 1  # type: ignore[attr-defined]
        assert events.next(5) == ("agent-started", 1.501, {})
        assert events.next(5) == ("agent-stopped", 0.001, {})


def test_a_new_agent_is_an_event_also_if_its_first_watch_fails(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "FIRST_LINE_PATIENCE", 0.1)
    monkeypatch.setattr(watching, "RETRY_INTERVAL", 0.0)
    stopped = b'{"event":"agent-stopped","time-ms":1}\n'
    with events_of(ports, line(watch=7), stopped) as events:
        assert events.next(5) == ("agent-stopped", 0.001, {})
        ports.guest.close()
        ports.__init__()  # type: ignore[misc]
        agent: Any = events._agent
        agent.started_ms += 1
        honest, agent.begin = agent.begin, lambda: None
        assert events.next(0.05) is None
        ports.guest.close()
        ports.__init__()  # type: ignore[misc]
        agent.begin = honest
        assert events.next(5) == ("agent-started", 1.501, {})


def test_a_line_without_an_end(ports: Ports) -> None:
    with events_of(ports, line(watch=7)) as events:
        ports.guest.sendall(b"x" * (watching.LONGEST_LINE + 1))
        with pytest.raises(ProtocolError, match="more than 65536 bytes"):
            events.next(5)


def test_a_guest_without_the_command(ports: Ports) -> None:
    def refuse() -> None:
        raise CommandNotFound("CommandNotFound", "no", "qga-watch")

    agent: Any = Watched(refuse)
    with pytest.raises(CommandNotFound):
        watching.Events(agent, ports, watching.Wanted()).__enter__()  # type: ignore[arg-type]
    assert ports.host.fileno() < 0


class Liar:
    """A guest with such files."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_file(self, _path: str, limit: int) -> bytes:
        return self.content[:limit]


ODD_ROWS = b"sl\n 0: 0:ZZZZ 0:0 0A\n 1: 0:" + b"F" * 9999 + b" 0:0 0A\n 2\n 3: 0:0050 0:0 0A x\n"


def test_odd_lines_in_the_guests_list_of_sockets() -> None:
    agent: Any = Liar(ODD_ROWS)
    assert CHECKS["port"](agent, "80", None).met
    assert not CHECKS["port"](agent, "81", None).met


def test_endless_errors_of_cloud_init() -> None:
    agent: Any = Liar(json.dumps({"v1": {"errors": ["x" * 100_000] * 9}}).encode())
    with pytest.raises(Never) as raised:
        CHECKS["cloud-init"](agent, "", None)
    assert len(str(raised.value)) < 2 * LONGEST_ERROR
