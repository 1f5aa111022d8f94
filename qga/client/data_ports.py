"""Data ports, seen from the host: raw virtio-serial ports in addition to the agent's.

In the guest a port has a name, such as `org.qga.data.0`; on the host it is a socket that QEMU
listens on. The caller passes the socket, or it is found automatically: libvirt creates it in the
directory of the agent's own socket, with the port's name instead of the agent's
(`…/domain-1-web/org.qga.data.0`, or `…/web.org.qga.data.0`). Without libvirt it is in QEMU's
command line.

QEMU serves one client of such a socket at a time, and the guest sees whether one is connected. So a
port is chosen only if it is free at both ends, and used only after the guest has seen the
connection.

Guests that are reached through vsock need none of this: see qga.client.vsock_ports.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from functools import cached_property

from qga.client.addresses import uri_and_domain
from qga.client.agent import GuestAgent
from qga.client.errors import CommandError, ConnectError
from qga.client.hosts import discovery
from qga.client.hosts.processes import AGENT_PORT, running_machines
from qga.client.ports import CHUNK, connect_port
from qga.client.results import PortInfo
from qga.client.transports import GONE
from qga.client.vsock_ports import dial_of, open_vsock_port
from qga.client.waits import pause

PREFIX = "org.qga.data."

CLOSED = f"this data port was closed at the other end; {GONE}"

# Parameters of libvirt's URIs that lead to another daemon on this host: a private libvirtd, or one
# for QEMU alone.
CHOICES = ("socket", "mode")

# Seconds until the guest must have noticed that its port is connected.
PATIENCE = 2.0
PAUSE = 0.005


class DataPort:
    """A connected data port. Reading and writing never block."""

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
        """Write bytes; returns how many were accepted, 0 if none can be now.

        Raises ConnectError if the port was closed at the other end.
        """
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise ConnectError(self.name, CLOSED) from None

    def receive(self) -> bytes:
        """Read available bytes. Raises ConnectError if the port was closed at the other end."""
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

    `given` contains sockets by the name of the port, "" for a port not to be used. Others are
    searched for next to the agent's socket.
    """

    def __init__(self, address: str, given: Mapping[str, str] | None = None) -> None:
        self.address = address
        self.given = dict(given or {})

    def socket_path(self, name: str) -> str | None:
        """The path of the socket of the port `name`, if known."""
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
            if is_at(guest, self.address):
                return guest.socket
        return ""

    @cached_property
    def _of_machine(self) -> Mapping[str, str]:
        """The sockets of the QEMU that serves the agent's."""
        for machine in running_machines(discovery.host_root()):
            if self._agent_socket in machine.sockets:
                return machine.ports
        return {}

    def open_free(self, agent: GuestAgent, *, wait: bool = True) -> DataPort | None:
        """Connect to the first port that is free at both ends; None if there is none.

        wait: until the guest sees us; otherwise the command that uses the port has to.
        Raises ConnectError for a socket that was given and cannot be used.
        """
        dial = None if self.given else dial_of(self.address)
        opened = open_vsock_port(agent, dial) if dial else None
        return DataPort(*opened) if opened else self._open_virtio(agent, wait)

    def _open_virtio(self, agent: GuestAgent, wait: bool) -> DataPort | None:
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
            if not wait or was_seen(agent, name):
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


def is_at(guest: discovery.FoundGuest, address: str) -> bool:
    """Whether an address is that of this guest, also through libvirt on this host."""
    scheme, _, place = address.partition(":")
    if scheme != "libvirt":
        return address == guest.address or guest.is_called(address)
    uri, domain = uri_and_domain(place)
    return guest.domain == f"libvirt:{daemon_of(uri or default_uri())}/{domain}"


def default_uri() -> str:
    """The URI that libvirt connects to if none is given."""
    its_default = discovery.SESSION if os.geteuid() else discovery.SYSTEM
    return os.environ.get("LIBVIRT_DEFAULT_URI") or its_default


def daemon_of(uri: str) -> str:
    """A URI without the parameters that choose no other daemon than the usual one."""
    place, _, parameters = uri.partition("?")
    usual = {f"socket={folder}" for folder in discovery.libvirt_sockets(place)}
    chosen = [
        each
        for each in re.split("[&;]", parameters)
        if each.partition("=")[0] in CHOICES and os.path.dirname(each) not in usual
    ]
    return "?".join(filter(None, [place, "&".join(chosen)]))


def free_ports(ports: Sequence[PortInfo]) -> list[str]:
    """The names of ports that are in use neither in the guest nor on the host."""
    free = (port.name for port in ports if not port.busy and port.host_connected is False)
    return list(dict.fromkeys(free))  # a guest may repeat names, and each try may take PATIENCE


def was_seen(agent: GuestAgent, name: str) -> bool:
    """Wait until the guest sees the connection; otherwise the socket may be another guest's."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if any(port.name == name and port.host_connected for port in guest_ports(agent)):
            return True
        pause(PAUSE)
    return False


def guest_ports(agent: GuestAgent) -> list[PortInfo]:
    """The guest's ports; none if the agent has no command to list them."""
    try:
        return agent.ports()
    except CommandError:
        return []
