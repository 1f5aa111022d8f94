"""Data ports over vsock, for guests that are reached through vsock; they need no configuration.

The agent listens on a separate vsock port for each. A token proves that the client that connects is
the one that asked for the port.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Optional

from qga.client.addresses import LARGEST_PORT, cid_and_port, is_name, path_and_port, resolve
from qga.client.agent import GuestAgent
from qga.client.errors import CommandError, ConnectError, ProtocolError
from qga.client.hosts.discovery import HYBRID, FoundGuest, check_listener
from qga.client.hybrid_vsock import connect_hybrid
from qga.client.sockets import connect_vsock

# Seconds to connect to a port that the agent has just opened.
PATIENCE = 5.0

LONGEST_TOKEN = 128

Dial = Callable[[int, float], socket.socket]
"""Connects to a vsock port of the guest before the deadline."""


def dial_of(address: str) -> Optional[Dial]:
    """A function that connects to other vsock ports of the guest; None if it is not at vsock.

    address: also the name of a guest of this host.
    """
    if is_name(address):
        try:
            return _dial_of_guest(resolve(address))
        except ConnectError:
            return None
    scheme, _, place = address.partition(":")
    if scheme == "vsock":
        cid, _port = cid_and_port(place)
        return lambda port, deadline: connect_vsock(cid, port, deadline)
    if scheme == "hvsock":
        path, _port = path_and_port(place)
        return lambda port, deadline: connect_hybrid(path, port, deadline)
    return None


def _dial_of_guest(guest: FoundGuest) -> Optional[Dial]:
    """It leads only to a monitor of a trusted user."""
    scheme, _, place = guest.address.partition(":")
    if scheme != HYBRID:
        return None
    path, _port = path_and_port(place)

    def check(connection: socket.socket) -> None:
        check_listener(guest, connection)

    return lambda port, deadline: connect_hybrid(path, port, deadline, check)


def open_vsock_port(agent: GuestAgent, dial: Dial) -> tuple[str, socket.socket] | None:
    """Open a data port; returns its name and the connection, or None if that is impossible.

    Raises ProtocolError if the reply of the guest is invalid.
    """
    try:
        offer = agent.open_vsock_port()
    except CommandError:  # the agent is older, or does not allow it
        return None
    if not (0 <= offer.port <= LARGEST_PORT and len(offer.token) <= LONGEST_TOKEN):
        raise ProtocolError(
            "the guest offers no vsock port", address=agent.address, command="qga-open-vsock-port"
        )
    try:
        link = dial(offer.port, time.monotonic() + PATIENCE)
    except (ConnectError, TimeoutError):  # the monitor may forward only the agent's port
        return None
    try:
        link.send(f"{offer.token}\n".encode(), socket.MSG_NOSIGNAL)
    except ConnectionError:
        link.close()
        return None
    return offer.name, link
