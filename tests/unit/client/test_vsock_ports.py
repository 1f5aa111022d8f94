"""Data ports over vsock from the client's end: what becomes of one that cannot be opened."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qga.client import DataPorts, GuestAgent, ProtocolError
from qga.client.hosts.checkup import checkup
from qga.client.vsock_ports import dial_of, open_vsock_port
from tests.unit.client_peer import Start

OFFER = {"name": "vsock:7", "port": 7, "token": "secret"}
NOT_FOUND = Exception("CommandNotFound", "no such command")


class Monitor:
    """The vsock socket of a guest whose ports are served by `ports`: by default nobody's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ports: dict[int, Callable[[socket.socket], None]] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                port = int(client.recv(100).split()[1])
                if port in self.ports:
                    client.sendall(b"OK 1024\n")
                    self.ports[port](client)


@pytest.fixture
def monitor(tmp_path: Path) -> Any:
    made = Monitor(tmp_path / "vsock")
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()


def opened(start: Start, monitor: Monitor, offer: Any) -> Any:
    peer = start({"qga-open-vsock-port": lambda _: offer})
    dial = dial_of(f"hvsock:{monitor.path}:1234")
    assert dial
    with GuestAgent(peer.address, 30) as agent:
        return open_vsock_port(agent, dial)


def test_the_token_comes_first(start: Start, monitor: Monitor) -> None:
    told = []

    def serve(client: socket.socket) -> None:
        told.append(client.recv(100))
        client.sendall(b"hi")

    monitor.ports[7] = serve
    name, link = opened(start, monitor, OFFER)
    with link:
        link.setblocking(True)
        assert (name, link.recv(100), told) == ("vsock:7", b"hi", [b"secret\n"])


@pytest.mark.parametrize(
    "offer", [NOT_FOUND, Exception("GenericError", "this guest has no vsock"), OFFER]
)
def test_there_is_another_way_where_it_cannot_be_opened(
    start: Start, monitor: Monitor, offer: Any
) -> None:
    """An older agent; a guest without the device; a monitor that lets nobody through."""
    assert opened(start, monitor, offer) is None


@pytest.mark.parametrize(
    "lie",
    [
        {**OFFER, "port": -1},
        {**OFFER, "port": 2**32},
        {**OFFER, "token": "x" * 1000},
        {**OFFER, "token": 5},
        {"name": "vsock:7"},
        [],
    ],
)
def test_what_is_not_a_port_is_refused(start: Start, monitor: Monitor, lie: Any) -> None:
    with pytest.raises(ProtocolError):
        opened(start, monitor, lie)


def test_only_vsock_addresses_have_such_ports() -> None:
    assert dial_of("vsock:3:1234") and dial_of("hvsock:/run/a:b:1234")
    for address in ("unix:/run/web", "web", "libvirt:web", "proxmox:100"):
        assert dial_of(address) is None


def test_sockets_that_were_given_come_first(start: Start) -> None:
    peer = start({"qga-get-ports": lambda _: []})
    with GuestAgent(peer.address, 30) as agent:
        ports = DataPorts("hvsock:/run/none:1234", {"org.qga.data.0": ""})
        assert ports.open_free(agent) is None
    assert [each["execute"] for each in peer.requests] == ["qga-get-ports"]


def test_the_checkup_names_what_is_missing(monitor: Monitor) -> None:
    (*_, last) = checkup(f"hvsock:{monitor.path}:1234", 5)
    assert (last.state, "nothing listens on this port" in last.detail) == ("failed", True), last
