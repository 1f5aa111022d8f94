"""Data ports, and files over them; see qga.client.copies.copying for whole copies."""

from __future__ import annotations

import math

from qga.client.connection import Connection
from qga.client.results import FileTransfer, PortInfo, VsockPort

CHECKSUM_PATIENCE = 600.0
"""Seconds; a large file takes long."""


class Transfer(Connection):
    def ports(self) -> list[PortInfo]:
        """The guest's virtio-serial ports, the agent's own included."""
        return self._ask("qga-get-ports", list[PortInfo])

    def open_vsock_port(self) -> VsockPort:
        """Open a data port over vsock; qga.client.data_ports connects to it."""
        return self._ask("qga-open-vsock-port", VsockPort)

    def file_send(
        self, path: str, port: str, offset: int, count: int, *, timeout: float = math.inf
    ) -> FileTransfer:
        """Make the guest send bytes of a file to a data port. Returns when they are sent."""
        return self._ask(
            "qga-file-send",
            FileTransfer,
            timeout=timeout,
            path=path,
            port=port,
            offset=offset,
            count=count,
        )

    def file_receive(
        self,
        path: str,
        port: str,
        offset: int,
        count: int,
        *,
        keep: bool = True,
        timeout: float = math.inf,
    ) -> FileTransfer:
        """Make the guest write exactly this many bytes from a data port into a file.

        With `keep=False` the guest removes the file if the transfer fails (not qga 0.1).
        """
        how = {} if keep else {"keep": False}
        return self._ask(
            "qga-file-receive",
            FileTransfer,
            timeout=timeout,
            path=path,
            port=port,
            offset=offset,
            count=count,
            **how,
        )

    def file_checksum(
        self, path: str, offset: int, count: int, *, timeout: float = CHECKSUM_PATIENCE
    ) -> FileTransfer:
        """The SHA-256 of a part of a file, or of fewer bytes if the file ends earlier."""
        return self._ask_patiently(
            "qga-file-checksum",
            FileTransfer,
            timeout=timeout,
            path=path,
            offset=offset,
            count=count,
        )
