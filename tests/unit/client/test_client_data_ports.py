"""Which socket belongs to which data port."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qga.client import ConnectError, GuestAgent, data_ports
from qga.client.data_ports import DataPort, DataPorts
from qga.client.ports import connect_port
from qga.client.programs import start_streamed
from tests.unit.client_peer import Peer
from tests.unit.host_root import HostRoot

AGENT = "org.qemu.guest_agent.0"
DATA = "org.qga.data.0"


@pytest.mark.parametrize("prefix", ["domain-1-web/", "web."])
def test_beside_the_agents_socket_as_libvirt_puts_it(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / f"{prefix}{DATA}"
    path.parent.mkdir(exist_ok=True)
    ports = DataPorts(f"unix:{tmp_path}/{prefix}{AGENT}")
    assert ports.socket_path(DATA) is None
    path.touch()
    assert ports.socket_path(DATA) == str(path)
    assert ports.socket_path("com.redhat.spice.0") is None
    assert ports.socket_path("org.qga.data./../../x") is None


def test_what_is_given_comes_first(tmp_path: Path) -> None:
    (tmp_path / DATA).touch()
    ports = DataPorts(f"unix:{tmp_path}/{AGENT}", {DATA: "/other", "my.port": "/mine"})
    assert (ports.socket_path(DATA), ports.socket_path("my.port")) == ("/other", "/mine")


def test_in_the_command_line_of_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["qemu-system-x86_64"]
    for number, name in enumerate((AGENT, DATA)):
        argv += ["-chardev", f"socket,id=c{number},path=/run/{number},server=on"]
        argv += ["-device", f"virtserialport,chardev=c{number},name={name}"]
    HostRoot(tmp_path).process(5, argv)
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    assert DataPorts("unix:/run/0").socket_path(DATA) == "/run/1"
    assert DataPorts("unix:/run/other").socket_path(DATA) is None


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("libvirt:qemu:///session/web", True),
        ("libvirt:qemu:///session?no_verify=1/web", True),
        ("libvirt:qemu:///session?no_verify=1&socket=/run/libvirt-sock/web", False),
        ("libvirt:qemu:///session?socket=/runtime/libvirt/virtqemud-sock/web", True),
        ("libvirt:qemu:///session?mode=direct/web", False),
        ("libvirt:qemu:///system/web", False),
        ("libvirt:qemu+ssh://root@host1.example.com/session/web", False),
        ("libvirt:other-web", False),
    ],
)
def test_ports_of_a_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, fits: bool
) -> None:
    """Addresses through libvirt of one guest of this host; not those of other hosts."""
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/runtime")
    folder = "/config/libvirt/qemu/channel/target/domain-1-web"
    host = HostRoot(tmp_path)
    for name in (AGENT, DATA):
        host.file(f"{folder}/{name}")
    assert DataPorts(address).socket_path(DATA) == (f"{tmp_path}{folder}/{DATA}" if fits else None)


@pytest.mark.parametrize(
    ("uri", "user", "folder"),
    [
        ("", 0, "/var/lib/libvirt"),
        ("", 1000, "/config/libvirt"),
        ("qemu:///session", 0, "/config/libvirt"),
        ("qemu:///system", 1000, "/var/lib/libvirt"),
        ("qemu+ssh://root@host1.example.com/system", 0, ""),
    ],
)
def test_ports_of_a_domain_of_the_default_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, user: int, folder: str
) -> None:
    """There is a domain of this name in both."""
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", uri)
    place = "qemu/channel/target/domain-1-web"
    host = HostRoot(tmp_path)
    for each in ("/config/libvirt", "/var/lib/libvirt"):
        for name in (AGENT, DATA):
            host.file(f"{each}/{place}/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    found = DataPorts("libvirt:web").socket_path(DATA)
    assert found == (f"{tmp_path}{folder}/{place}/{DATA}" if folder else None)


@contextmanager
def peer_with(folder: Path, ports: Callable[[dict[str, Any]], Any]) -> Iterator[GuestAgent]:
    peer = Peer(folder / AGENT, {"qga-get-ports": ports})
    try:
        with GuestAgent(peer.address) as agent:
            yield agent
    finally:
        peer.close()


def described(connected: bool | None, busy: bool = False) -> list[dict[str, Any]]:
    seen = {} if connected is None else {"host-connected": connected}
    return [{"name": DATA, "device": "/dev/vport1p1", "busy": busy, **seen}]


@pytest.mark.parametrize(
    "ports",
    [
        [],
        described(True),
        described(False, busy=True),
        described(None),
        Exception("CommandNotFound", "not found"),
    ],
)
def test_a_port_that_is_not_free(tmp_path: Path, ports: Any) -> None:
    with peer_with(tmp_path, lambda _: ports) as agent:
        assert DataPorts(agent.address).open_free(agent) is None


def test_a_free_port_is_used_once_the_guest_has_seen_us(tmp_path: Path) -> None:
    answers = iter([described(False), described(False), described(True)])
    other = Peer(tmp_path / DATA, {})
    try:
        with peer_with(tmp_path, lambda _: next(answers)) as agent:
            port = DataPorts(agent.address).open_free(agent)
            assert port is not None
            assert port.name == DATA
            port.close()
    finally:
        other.close()
    assert next(answers, None) is None


def test_a_port_that_is_listed_often_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_ports, "PATIENCE", 0.1)
    with (
        listening(tmp_path / DATA) as port,
        peer_with(tmp_path, lambda _: described(False) * 9) as agent,
    ):
        assert DataPorts(agent.address).open_free(agent) is None
        port.setblocking(False)
        port.accept()[0].close()
        with pytest.raises(BlockingIOError):
            port.accept()


def test_a_port_with_no_room_for_another_client(tmp_path: Path) -> None:
    """The guest may say that nobody is connected."""
    with listening(tmp_path / DATA, backlog=0), socket.socket(socket.AF_UNIX) as other:
        other.connect(f"{tmp_path}/{DATA}")
        with pytest.raises(ConnectError, match="temporarily unavailable: other programs are using"):
            connect_port(f"{tmp_path}/{DATA}")
        with peer_with(tmp_path, lambda _: described(False)) as agent:
            assert DataPorts(agent.address).open_free(agent) is None


def test_a_port_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as port:
        monitor = os.open(folder, os.O_PATH)
        port.bind(f"/proc/self/fd/{monitor}/{DATA}")
        os.close(monitor)
        port.listen()
        connect_port(f"{folder}/{DATA}").close()


@pytest.mark.parametrize("refused", [False, True])
def test_a_program_is_started_without_a_second_look_at_the_ports(
    tmp_path: Path, refused: bool
) -> None:
    """The agent waits for the host itself. Where it has waited in vain, we look at the ports."""
    looks = iter([described(False), described(False), described(True)])
    reason = f"the host is not connected to the port '{DATA}': connect to its socket first"
    starts = iter([Exception("GenericError", reason)] * refused + [{"pid": 7}])
    handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "qga-get-ports": lambda _: next(looks),
        "qga-exec": lambda _: next(starts),
        "qga-exec-read": lambda _: {"out-total": 0, "err-total": 0, "exited": True, "exitcode": 0},
    }
    peer, other = Peer(tmp_path / AGENT, handlers), Peer(tmp_path / DATA, {})
    try:
        with GuestAgent(peer.address) as agent:
            ports = DataPorts(agent.address)
            with start_streamed(agent, ["true"], ports) as program:
                program.poll()
                assert program.port is not None
    finally:
        peer.close()
        other.close()
    asked = [request["execute"] for request in peer.requests]
    again = ["qga-get-ports", "qga-get-ports", "qga-exec"] if refused else []
    assert asked == ["qga-get-ports", "qga-exec", *again, "qga-exec-read"]


@pytest.mark.parametrize("sending", [True, False])
def test_a_port_that_qemu_closes_is_named(sending: bool) -> None:
    """Also where the kernel says so by an error, as it does when bytes were not read."""
    ours, theirs = socket.socketpair()
    ours.send(b"unread")
    with DataPort(DATA, ours) as port:
        theirs.close()
        with pytest.raises(ConnectError, match=f"{DATA}: this data port was closed"):
            if sending:
                port.send(b"x")
            else:
                port.receive()


@contextmanager
def listening(path: Path, backlog: int = 8) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield listener


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"other.port": "/run/x"}, f"other.port: the guest has no such port; it has {DATA}"),
        ({DATA: "/nonexistent"}, "unix:/nonexistent: No such file or directory"),
    ],
)
def test_a_given_socket_that_cannot_be_used(
    tmp_path: Path, given: dict[str, str], complaint: str
) -> None:
    with (
        peer_with(tmp_path, lambda _: described(False)) as agent,
        pytest.raises(ConnectError, match=complaint),
    ):
        DataPorts(agent.address, given).open_free(agent)


def test_a_given_socket_that_is_anothers(tmp_path: Path) -> None:
    other = Peer(tmp_path / "other", {})
    try:
        with (
            peer_with(tmp_path, lambda _: described(False)) as agent,
            pytest.raises(ConnectError, match="the guest does not see anyone connect to"),
        ):
            DataPorts(agent.address, {DATA: f"{tmp_path}/other"}).open_free(agent)
    finally:
        other.close()


def test_a_port_that_is_to_be_left_alone(tmp_path: Path) -> None:
    (tmp_path / DATA).touch()
    with peer_with(tmp_path, lambda _: described(False)) as agent:
        assert DataPorts(agent.address, {DATA: ""}).open_free(agent) is None
