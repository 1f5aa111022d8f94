"""Connections to services in the guest; qga.client.tunnels transfers their data."""

from __future__ import annotations

from qga.client.commands.streams import PORT_PATIENCE
from qga.client.connection import Connection
from qga.client.conversion import encode_base64, member, optional


class Tunnels(Connection):
    def tunnel_open(self, port: str | None = None) -> int:
        """Open a tunnel and return its number.

        `port` is a connected data port for its frames; without it, use `tunnel_exchange`.
        """
        if port is None:
            return self._ask("qga-tunnel", int, "tunnel")
        patience = max(self.timeout, PORT_PATIENCE)
        return self._ask("qga-tunnel", int, "tunnel", timeout=patience, port=port)

    def tunnel_connect(
        self,
        tunnel: int,
        host: str | None = None,
        port: int | None = None,
        *,
        path: str | None = None,
        timeout: float = 10.0,
    ) -> int:
        """Begin to connect to a host and port, or to the unix socket `path`, in the guest.

        Returns the number of the connection in the tunnel, where the guest reports the outcome
        within `timeout` seconds.
        """
        target = {"host": host, "port": port, "path": path}
        target = {name: value for name, value in target.items() if value is not None}
        command, given = "qga-connect", {"tunnel": tunnel, **target, "timeout": timeout}
        reply = self.call(command, given, timeout=self.timeout + timeout)
        with self._telling(command):
            return member(int, "connection", reply)

    def tunnel_exchange(self, tunnel: int, data: bytes) -> bytes:
        """Send frames through a tunnel without a data port, and return waiting frames."""
        command = "qga-tunnel-exchange"
        reply = self.call(command, tunnel=tunnel, buf_b64=encode_base64(data))
        with self._telling(command):
            return optional(bytes, "data", reply) or b""

    def tunnel_close(self, tunnel: int) -> None:
        """Close a tunnel, and reset all of its connections."""
        self.call("qga-tunnel-close", tunnel=tunnel)
