"""Connections to services in the guest, many over one data port; see qga.tunnels.frames.

Over a data port (qga.ports) frames are sent as they are; without one, the host sends and fetches
them in pieces. Only the channel that opened a tunnel can use it. The code for the transport is
imported when it is needed.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Callable, Optional

from qga import Base64, Caller, CommandGroup, NotRequired, Payload, QgaError, command
from qga.policy.quota import Quota
from qga.records import TypedDict
from qga.wording import counted

if TYPE_CHECKING:
    from qga.plugin.services import Services
    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict
    from qga.tunnels.tunnel import Tunnel

    from ._tunnel import ServiceConnection

MAX_TUNNELS = 16
MAX_CONNECTIONS = 256
"""Tunnels and connections of a channel at the same time."""

MAX_TIMEOUT = 300.0
"""Seconds to establish a connection."""

DEFAULT_TIMEOUT = 10.0

_LAST_PORT = 65535


class QgaTunnel(TypedDict):
    tunnel: int


class QgaConnect(TypedDict):
    connection: int


class QgaTunnelExchange(TypedDict):
    data: NotRequired[Payload]


def _may_connect(policy: Policy, given: dict[str, Any]) -> Verdict:
    host, port, path = given.get("host"), given.get("port"), given.get("path")
    _check_target(host, port, path)
    if path is not None:
        return policy.judge_socket(path)
    return policy.judge_host(str(host), int(port or 0))


def _check_target(host: str | None, port: int | None, path: str | None) -> None:
    if path is None and host is not None and port is not None:
        if not 1 <= port <= _LAST_PORT:
            raise QgaError(f"Parameter 'port' is {port}; use a number from 1 to {_LAST_PORT}")
    elif path is None or host is not None or port is not None:
        raise QgaError("use either 'host' and 'port', or 'path'")


class Tunnels(CommandGroup):
    """Connections to services in the guest."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._numbers = itertools.count(1)
        self._tunnels: dict[tuple[str, int], Tunnel] = {}  # by channel and number
        self._open = Quota()
        self._connections = Quota()

    def on_stop(self) -> None:
        for tunnel in list(self._tunnels.values()):
            tunnel.close("the agent is shutting down")

    @command(access="unrestricted", blocking=True, like=("guest-exec",))
    def qga_tunnel(self, port: Optional[str] = None, *, caller: Caller) -> QgaTunnel:
        """Open a tunnel for connections of qga-connect.

        port: name of a data port that the host is connected to. All connections are reset when the
            host disconnects. Without a port, use qga-tunnel-exchange; the tunnel is then closed
            after a minute without a call.
        Returns its number.
        """
        self._take(self._open, caller.channel, MAX_TUNNELS, "tunnel is", "tunnels are")
        number = next(self._numbers)
        try:
            tunnel = self._make(port, caller, number)
        except BaseException:
            self._give(self._open, caller.channel)
            raise
        self.agent.loop.post(lambda: self._start(tunnel, caller.channel, number))
        return {"tunnel": number}

    @command(access="unrestricted", blocking=True, verdict=_may_connect, like=("guest-exec",))
    def qga_connect(
        self,
        tunnel: int,
        host: Optional[str] = None,
        port: Optional[int] = None,
        path: Optional[str] = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        caller: Caller,
    ) -> QgaConnect:
        """Connect to a service, as seen in the guest.

        tunnel: as returned by qga-tunnel.
        host: name or address. The guest looks up a name once.
        port: number of the TCP port.
        path: full path of a unix socket, instead of `host` and `port`.
        timeout: seconds to establish the connection, at most 300.
        Returns the number of the connection. The outcome is reported in the tunnel, after the host
        has granted the connection credit there.
        """
        _check_target(host, port, path)
        if not 0 < timeout <= MAX_TIMEOUT:
            raise QgaError(
                f"Parameter 'timeout' is {timeout:g}; use a number of seconds from 0 to "
                f"{MAX_TIMEOUT:g}"
            )
        found = self._tunnel(tunnel, caller)
        channel, number = caller.channel, next(self._numbers)
        self._take(self._connections, channel, MAX_CONNECTIONS, "connection is", "connections are")
        try:
            dial = self._dial(caller, host, port, path, timeout)
        except BaseException:
            self._give(self._connections, channel)
            raise
        self.agent.loop.post(lambda: self._connect(found, channel, number, dial))
        return {"connection": number}

    @command(access="unrestricted", changes=False, secret=("buf-b64",), like=("guest-exec",))
    def qga_tunnel_exchange(
        self, tunnel: int, buf_b64: Optional[Base64] = None, *, caller: Caller
    ) -> QgaTunnelExchange:
        """Send frames through a tunnel without a data port, and fetch waiting ones. Never waits.

        tunnel: as returned by qga-tunnel.
        buf-b64: frames for the guest, or parts of them, base64-encoded.
        """
        found = self._tunnel(tunnel, caller)
        from ._tunnel import PieceTunnel

        if not isinstance(found, PieceTunnel):
            raise QgaError("the frames of this tunnel pass over its data port")
        data = found.exchange(bytes(buf_b64.decode()) if buf_b64 else b"")
        return {"data": Payload(data)} if data else {}

    @command(access="unrestricted", changes=False, like=("guest-exec",))
    def qga_tunnel_close(self, tunnel: int, *, caller: Caller) -> None:
        """Close a tunnel and reset all of its connections.

        tunnel: as returned by qga-tunnel.
        """
        self._tunnel(tunnel, caller).close()

    def _tunnel(self, number: int, caller: Caller) -> Tunnel:
        found = self._tunnels.get((caller.channel, number))
        if found is None:
            raise QgaError(f"there is no tunnel {number}; it may have been closed")
        return found

    def _make(self, port: str | None, caller: Caller, number: int) -> Tunnel:
        from ._tunnel import PieceTunnel, PortTunnel

        def on_closed() -> None:
            self._tunnels.pop((caller.channel, number), None)
            self._give(self._open, caller.channel)

        if port is None:
            return PieceTunnel(self.agent.loop, on_closed)
        from ._ports import connected_port

        return PortTunnel(connected_port(port, caller), self.agent.loop, on_closed)

    def _start(self, tunnel: Tunnel, channel: str, number: int) -> None:
        self._tunnels[channel, number] = tunnel
        tunnel.start()

    def _dial(
        self, caller: Caller, host: str | None, port: int | None, path: str | None, timeout: float
    ) -> Callable[[ServiceConnection], None]:
        """Approve the target, and return what connects to it on the loop."""
        from ._dialing import Dialer, connect_unix

        if path is not None:
            try:
                fd = caller.policy.socket(path)
            except OSError as error:
                raise QgaError(f"cannot connect to 'unix:{path}': {error.strerror}") from None
            connected = connect_unix(fd, path, timeout)
            return lambda connection: connection.on_done(connected, "")
        addresses = caller.policy.addresses(str(host), int(port or 0))

        def dial(connection: ServiceConnection) -> None:
            dialer = Dialer(self.agent.loop, addresses, timeout, connection.on_done)
            connection.cancel = dialer.cancel

        return dial

    def _connect(
        self, tunnel: Tunnel, channel: str, number: int, dial: Callable[[ServiceConnection], None]
    ) -> None:
        from ._tunnel import ServiceConnection

        connection = ServiceConnection(
            number, tunnel, self.agent.loop, lambda: self._give(self._connections, channel)
        )
        dial(connection)
        tunnel.add(connection)

    def _take(self, quota: Quota, channel: str, most: int, one: str, many: str) -> None:
        """Count one more, with its descriptor. Raises QgaError if a limit is exceeded."""
        self.agent.descriptors.take(channel, 1)
        if not quota.take(channel, 1, most):
            self.agent.descriptors.give(channel, 1)
            number = counted(quota.taken(channel), one, many)
            raise QgaError(f"{number} open already; close one first")

    def _give(self, quota: Quota, channel: str) -> None:
        quota.give(channel, 1)
        self.agent.descriptors.give(channel, 1)
