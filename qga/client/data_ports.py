"""Data ports: raw virtio-serial ports beside the agent's, seen from the host.

In the guest a port has a name, such as `org.qga.data.0`; on the host it is a socket that QEMU
listens on. The caller gives the socket of a name, or it is found: libvirt puts it into the
directory of the agent's own socket, with the port's name in place of the agent's
(`…/domain-1-web/org.qga.data.0`, or `…/web.org.qga.data.0`). For other QEMUs it is in the command
line.

QEMU serves one client of such a socket at a time, and the guest sees whether one is there: a
port is taken only while it is free at both ends, and used only once the guest has seen us come.

A guest that is reached by vsock needs none of that: see qga.client.vsock_ports.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from functools import cached_property

from qga.client.agent import GuestAgent
from qga.client.errors import CommandError, ConnectError
from qga.client.hosts import discovery
from qga.client.hosts.processes import AGENT_PORT, running_machines
from qga.client.ports import CHUNK, connect_port
from qga.client.results import PortInfo
from qga.client.vsock_ports import dial_of, open_vsock_port

PREFIX = "org.qga.data."

CLOSED = "this data port was closed at the other end"

# Seconds until the guest must have seen that its port was connected.
PATIENCE = 2.0
PAUSE = 0.005


class DataPort:
    """A port whose host's end is ours. Reading and writing never wait."""

    def __init__(self, name: str, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.name = name
        self._socket = connection

    def __enter__(self) -> DataPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self.fileno() < 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes | memoryview) -> int:
        """How many of the bytes were taken; 0 when none are just now.

        ConnectError when the port was closed at the other end.
        """
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise ConnectError(self.name, CLOSED) from None

    def receive(self) -> bytes:
        """What has come; ConnectError when the port was closed at the other end."""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return b""
        except ConnectionError:
            data = b""
        if not data:
            raise ConnectError(self.name, CLOSED)
        return data

    def close(self) -> None:
        self._socket.close()


class DataPorts:
    """The data ports of the guest whose agent is at `address`.

    `given` has the sockets of some by their names, "" for one that is not to be used; the others
    are looked for beside the agent's.
    """

    def __init__(self, address: str, given: Mapping[str, str] | None = None) -> None:
        self.address = address
        self.given = dict(given or {})

    def socket_path(self, name: str) -> str | None:
        """Where the socket of the port `name` is, if that is known."""
        if name in self.given:
            return self.given[name] or None
        if not name.startswith(PREFIX) or "/" in name:
            return None
        if self._agent_socket.endswith(AGENT_PORT):
            path = self._agent_socket[: -len(AGENT_PORT)] + name
            if os.path.exists(path):
                return path
        return self._of_machine.get(name)

    @cached_property
    def _agent_socket(self) -> str:
        """The path of the agent's own socket, "" if it has none on this host."""
        scheme, _, path = self.address.partition(":")
        if scheme == "unix":
            return path
        for guest in discovery.find_guests():
            if self.address in (guest.address, guest.domain) or guest.is_called(self.address):
                return guest.socket
        return ""

    @cached_property
    def _of_machine(self) -> Mapping[str, str]:
        """The sockets of the QEMU that serves the agent's."""
        for machine in running_machines(discovery.host_root()):
            if self._agent_socket in machine.sockets:
                return machine.ports
        return {}

    def open_free(self, agent: GuestAgent) -> DataPort | None:
        """The first port that is free at both ends, connected; None if none is free.

        ConnectError for a socket that was given and cannot be used.
        """
        dial = None if self.given else dial_of(self.address)
        opened = open_vsock_port(agent, dial) if dial else None
        return DataPort(*opened) if opened else self._open_virtio(agent)

    def _open_virtio(self, agent: GuestAgent) -> DataPort | None:
        ports = guest_ports(agent)
        self._check_given(ports)
        for name in free_ports(ports):
            path = self.socket_path(name)
            if path is None:
                continue
            try:
                port = DataPort(name, connect_port(path))
            except ConnectError:
                if name in self.given:
                    raise
                continue
            if was_seen(agent, name):
                return port
            port.close()
            if name in self.given:
                raise ConnectError(name, f"the guest does not see anyone connect to {path}")
        return None

    def _check_given(self, ports: Sequence[PortInfo]) -> None:
        names = [port.name for port in ports]
        for name in self.given:
            if names and name not in names:
                raise ConnectError(name, f"the guest has no such port; it has {', '.join(names)}")


def free_ports(ports: Sequence[PortInfo]) -> list[str]:
    """The names of those that neither the guest nor another program of a host is using."""
    free = (port.name for port in ports if not port.busy and port.host_connected is False)
    return list(dict.fromkeys(free))  # each costs PATIENCE, however often a guest names it


def was_seen(agent: GuestAgent, name: str) -> bool:
    """Wait until the guest knows that its port is connected: the socket may be another's."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if any(port.name == name and port.host_connected for port in guest_ports(agent)):
            return True
        time.sleep(PAUSE)
    return False


def guest_ports(agent: GuestAgent) -> list[PortInfo]:
    """The guest's ports; none where the agent has no command to list them."""
    try:
        return agent.ports()
    except CommandError:
        return []
