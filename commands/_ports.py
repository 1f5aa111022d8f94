"""A data port for a command: one that the host has connected to."""

from __future__ import annotations

from qga import Caller, QgaError
from qga.ports import PortFile, open_port

HOST_PATIENCE = 5.0
"""Seconds for the host to connect. It connects before it sends the request, but to another port."""


def connected_port(name: str, caller: Caller) -> PortFile:
    """Open a port for `caller`: one of virtio-serial, or `vsock:NUMBER`. It may wait.

    Raises QgaError if that fails or the host is not connected to it.
    """
    if name.startswith("vsock:"):
        return _vsock_port(name, caller)
    try:
        port = open_port(name)
    except OSError as error:
        raise QgaError(str(error.strerror)) from error
    try:
        if port.wait_for_host(HOST_PATIENCE):
            return port
        reason = "connect to its socket first"
    except OSError as error:
        reason = str(error.strerror)
    port.close()
    raise QgaError(f"the host is not connected to the port '{name}': {reason}")


def _vsock_port(name: str, caller: Caller) -> PortFile:
    from ._vsock_ports import find

    port = find(caller.channel, name)
    port.wait_for_host(HOST_PATIENCE)
    return port.open()
