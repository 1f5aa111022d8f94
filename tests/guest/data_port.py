"""The host's end of a data port, and how the agent under test uses the other end."""

from __future__ import annotations

import json
import socket
from typing import Any

from .agent_socket import AgentError, AgentSocket
from .service import wait_for
from .vm import DATA_PORTS, Guest, Port

PORT, OTHER_PORT = DATA_PORTS
MIB = 1024 * 1024


class Link:
    """The host's end of a data port."""

    def __init__(self, guest: Guest, port: Port = PORT) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(guest.channel_path(port))

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, count: int) -> bytes:
        """Read exactly this number of bytes."""
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(MIB, count - len(data)))
            assert piece, f"the port was closed after {len(data)} bytes"
            data += piece
        return bytes(data)

    def take_until(self, end: bytes) -> bytes:
        """Read up to and including `end`."""
        data = bytearray()
        while not data.endswith(end):
            data += self.take(1)
        return bytes(data)


def state_of_port(agent: AgentSocket, port: Port = PORT) -> dict[str, Any]:
    """Return the port's entry in the reply of qga-get-ports."""
    (found,) = [each for each in agent.execute("qga-get-ports") if each["name"] == port.name]
    return dict(found)


def wait_until_free(agent: AgentSocket) -> None:
    """Wait until no process in the guest has the port open."""
    wait_for(lambda: not state_of_port(agent)["busy"], "the port to be free")


def result(agent: AgentSocket) -> Any:
    """Return the result of a request that was sent. Raises AgentError."""
    reply = json.loads(agent.read_line())
    if "error" in reply:
        raise AgentError(reply["error"])
    return reply["return"]
