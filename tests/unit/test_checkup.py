"""What the host's doctor says of a machine that is paused, and of an agent that is cut off."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.client.hosts import discovery
from qga.client.hosts.checkup import Check, checkup
from qga.client.hosts.discovery import FoundGuest
from qga.client.hosts.qmp import MOST, run_state
from tests.unit.client_peer import Handler, Peer
from tests.unit.host_root import HostRoot, qemu
from tests.unit.libvirt_stand_in import Libvirt, LibvirtError, installed


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    return installed(monkeypatch)


def last(address: str) -> Check:
    return list(checkup(address, 0.5))[-1]


def test_an_agent_that_libvirt_has_given_up(libvirt: Libvirt) -> None:
    def unresponsive(_request: Any) -> Any:
        reason = "Guest agent is not responding: QEMU guest agent is not connected"
        raise LibvirtError("VIR_ERR_AGENT_UNRESPONSIVE", reason)

    libvirt.agent = unresponsive
    check = last("libvirt:web")
    assert (check.subject, check.state) == ("answer", "failed")
    assert "not responding" in check.detail
    assert "systemctl start" not in check.detail
    assert check.advice.startswith("restart the agent in the guest")


def test_an_agent_that_libvirt_refuses_need_not_be_restarted(libvirt: Libvirt) -> None:
    def refused(_request: Any) -> Any:
        raise LibvirtError("VIR_ERR_INTERNAL_ERROR", "access denied")

    libvirt.agent = refused
    check = last("libvirt:web")
    assert (check.subject, check.advice) == ("answer", "")
    assert "access denied" in check.detail


def test_where_libvirt_does_not_tell_it_may_not_run_at_all(libvirt: Libvirt) -> None:
    libvirt.port_state = ""
    test = LibvirtError("VIR_ERR_AGENT_UNRESPONSIVE", "Guest agent is not responding")

    def unresponsive(_request: Any) -> Any:
        raise test

    libvirt.agent = unresponsive
    assert "is the agent running in the guest (systemctl start" in last("libvirt:web").detail


def test_a_domain_that_is_paused(libvirt: Libvirt) -> None:
    libvirt.domain_state = 3
    assert last("libvirt:web")[:3] == ("domain", "failed", "the VM is paused")


def test_a_libvirt_that_does_not_run_is_not_needed_for_a_free_socket(
    agent: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libvirt: Libvirt
) -> None:
    guest = FoundGuest(
        "web", agent.address, agent.address[5:], "libvirt", "libvirt:test:///refuses/web"
    )
    monkeypatch.setattr("qga.client.addresses.resolve", lambda _: guest)
    monkeypatch.setattr("qga.client.hosts.discovery.libvirt_is_installed", lambda: True)
    agent.deaf = False
    agent.handlers["guest-ping"] = lambda _: {}
    found = {check.subject: check.state for check in checkup("web", 5)}
    assert (found["libvirt"], found["answer"]) == ("warning", "ok")
    assert libvirt.uris == []


class Monitor:
    """QEMU's end of QMP; `lines` are sent after the greeting, one for each line that comes."""

    def __init__(
        self, path: Path, lines: list[bytes], greeting: bytes = b'{"QMP": {}}\r\n'
    ) -> None:
        self._lines = lines
        self._greeting = greeting
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as requests:
                try:
                    connection.sendall(self._greeting)
                    for line, _request in zip(self._lines, requests):
                        connection.sendall(line)
                    requests.read()  # until the other end goes
                except OSError:
                    pass


def told(state: str) -> list[bytes]:
    event = b'{"event": "STOP", "timestamp": {}}\r\n'
    status = json.dumps({"return": {"status": state, "running": False}, "id": 2}).encode()
    return [event + b'{"return": {}, "id": 1}\r\n', event + status + b"\r\n"]


def monitored(path: Path) -> list[list[str]]:
    """The arguments of QEMU that give it a monitor."""
    chardev = ["-chardev", f"socket,id=qmp,path={path},server=on,wait=off"]
    return [
        ["-qmp", f"unix:{path},server=on,wait=off"],
        [*chardev, "-mon", "chardev=qmp,mode=control"],
    ]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Peer]:
    handlers: dict[str, Handler] = {
        name: lambda _: RuntimeError("CommandNotFound", "no")
        for name in ("guest-info", "guest-fsfreeze-status", "guest-get-time", "guest-ping")
    }
    peer = Peer(tmp_path / "socket", handlers)
    peer.deaf = True
    try:
        yield peer
    finally:
        peer.close()


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("named", ["web", ""])
def test_a_machine_that_qemu_has_paused(
    agent: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: int, named: str
) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    (tmp_path / tmp_path.parts[1]).symlink_to(Path("/") / tmp_path.parts[1])
    argv = [*qemu("web", str(tmp_path / "socket")), *monitored(tmp_path / "qmp")[form]]
    HostRoot(tmp_path).process(9, argv)
    monitor = Monitor(tmp_path / "qmp", told("paused"))
    try:
        check = last(named or agent.address)
    finally:
        monitor.close()
    assert check[:3] == ("machine", "failed", "the VM is paused")
    assert "cont" in check.advice


@pytest.mark.parametrize("state", ["running", "a new state"])
def test_a_machine_that_runs_and_one_in_a_state_that_we_do_not_know(
    agent: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    path = f"{tmp_path}/qmp"
    found = discovery.Monitor("web", f"unix:{path}", path, os.getpid())
    monkeypatch.setattr("qga.client.hosts.discovery.monitor_of", lambda _: found)
    monitor = Monitor(tmp_path / "qmp", told(state))
    try:
        *_, machine, answer = checkup(agent.address, 0.5)
    finally:
        monitor.close()
    assert machine == ("machine", "ok", f"QEMU reports: {state}", "")
    assert answer[:2] == ("answer", "failed")


@pytest.mark.parametrize(
    ("greeting", "lines"),
    [
        (b"", []),  # another client is being served
        (b'{"QMP": {}}\r\n', []),
        (b"no JSON\r\n", []),
        (b"\xff\n", []),
        (b"x" * (2 * MOST), []),
        (b'{"QMP": {}}\n', [b'{"return": {}, "id": 1}\n', b'{"error": {}, "id": 2}\n']),
        (b'{"QMP": {}}\n', [b'{"return": {}, "id": 1}\n', b'{"return": 5, "id": 2}\n']),
        (b'{"QMP": {}}\n', [b"5\n"]),
        (b'{"QMP": {}}\n', [b"[" * 100_000 + b"\n"]),
        (b'{"QMP": {}}\n', [b'{"event": "X"}\n' * (MOST // 8)]),
    ],
)
def test_a_monitor_that_does_not_answer_as_one(
    tmp_path: Path, greeting: bytes, lines: list[bytes]
) -> None:
    monitor = Monitor(tmp_path / "qmp", lines, greeting)
    start = time.monotonic()
    try:
        assert run_state(str(tmp_path / "qmp"), 0.5) == ""
    finally:
        monitor.close()
    assert time.monotonic() - start < 10
    assert run_state(str(tmp_path / "nosuch"), 0.5) == ""


@pytest.mark.parametrize(
    ("own", "advice"),
    [(["qga-exec"], "qemu-ga --doctor"), ([], "qemu-ga.conf (qemu-ga --dump-conf)")],
)
def test_only_our_agent_has_a_doctor(tmp_path: Path, own: list[str], advice: str) -> None:
    names = {"guest-ping": True, "guest-exec": False, **dict.fromkeys(own, True)}
    check = commands_check(tmp_path, names, "thawed")
    assert check.advice.startswith("if that is not wanted: ")
    assert advice in check.advice
    assert ("--doctor" in check.advice) is bool(own)
    assert check.detail.endswith(" is off: guest-exec")


def test_while_frozen_commands_are_off_and_not_named(tmp_path: Path) -> None:
    names = {f"guest-{number}": False for number in range(48)}
    check = commands_check(tmp_path, names, "frozen")
    assert check.detail == "48 of 48 are off while filesystems are frozen"


def commands_check(folder: Path, names: dict[str, bool], status: str) -> Check:
    commands = [
        {"name": name, "enabled": on, "success-response": True} for name, on in names.items()
    ]
    peer = Peer(
        folder / "agent",
        {
            "guest-ping": lambda _: {},
            "guest-info": lambda _: {"version": "1", "supported_commands": commands},
            "guest-fsfreeze-status": lambda _: status,
            "guest-get-time": lambda _: time.time_ns(),
        },
    )
    try:
        checks = {check.subject: check for check in checkup(peer.address, 5)}
    finally:
        peer.close()
    assert list(checks).index("filesystems") < list(checks).index("commands")
    return checks["commands"]
