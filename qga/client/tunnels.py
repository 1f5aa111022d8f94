"""Sockets connected to services in the guest, many over one data port.

    with guest.tunnel() as tunnel:
        connection = tunnel.connect(Target("127.0.0.1", 22))

Each tunnel has a thread that transfers the data; qga.tunnels.frames describes its format. If the
guest has no free data port, the data passes through the agent, which is slower. The guest is not
trusted: no more than a window is buffered for each connection, and a guest that falls silent ends
the tunnel.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from qga.client.data_ports import DataPorts
from qga.client.errors import AgentTimeout, ConnectError, ProtocolError
from qga.client.texts import reason_of
from qga.client.tunnel_ends import HostTunnel, LocalConnection, PieceTunnel, PortTunnel
from qga.client.waits import wait_until
from qga.loop import Loop
from qga.tunnels.connection import abort as abort

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

TIMEOUT = 10.0
"""Seconds to establish a connection."""

# Extra seconds for the guest to report the outcome, and seconds to send the last bytes.
MARGIN = 2.0
LAST_BYTES = 2.0

HIGHEST_NUMBER = 2**32 - 1


class Target(NamedTuple):
    """A host and port, or the path of a unix socket, as seen from the guest."""

    host: str | None = None
    port: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in str(self.host) else f"{self.host}:{self.port}"


class Outcome:
    """The outcome of a connection.

    on_failure: called once, on any thread, with the reason if the connection fails or is reset.
    """

    def __init__(self, on_failure: Callable[[str], None] = lambda _: None) -> None:
        self.decided = Event()
        self.opened = False
        self.reason = ""
        self._on_failure = on_failure

    def open(self) -> None:
        self.opened = True
        self.decided.set()

    def end(self, reason: str) -> None:
        """Called when the connection is closed; with a reason if it was reset."""
        if reason and not self.reason:
            self.reason = reason
            self._on_failure(reason)
        self.decided.set()


class GuestSocket(socket.socket):
    """A connected socket whose other end is in the guest.

    Reading raises ConnectionResetError if the connection was reset there or the tunnel is closed.
    """

    outcome: Outcome
    close_with: Callable[[], object] | None = None

    def recv(self, *arguments: Any) -> bytes:
        data = super().recv(*arguments)
        self._check(len(data))
        return data

    def recv_into(self, *arguments: Any) -> int:
        count = super().recv_into(*arguments)
        self._check(count)
        return count

    def close(self) -> None:
        super().close()
        if self.close_with is not None:
            close, self.close_with = self.close_with, None
            close()

    def _check(self, count: int) -> None:
        if count == 0 and self.outcome.reason:
            raise ConnectionResetError(self.outcome.reason)


class GuestTunnel:
    """A tunnel; use it as a context manager. Threads may share it.

    ports: the guest's data ports, of which a free one is used.
    """

    def __init__(self, agent: GuestAgent, ports: DataPorts | None = None) -> None:
        self._agent = agent
        self._loop = Loop(on_fault=self._on_fault)
        self._finished = Event()
        self._joining: dict[socket.socket, Outcome] = {}
        """Connections that the thread is to take."""
        self._is_over = False
        try:
            self._end = self._open(agent, ports or DataPorts(agent.address))
        except BaseException:
            self._loop.close()
            raise
        self._thread = Thread(target=self._run, name="qga-tunnel", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._end.close()
            self._loop.close()
            raise ConnectError(agent.address, str(error)) from None

    @property
    def port(self) -> str | None:
        """The data port that it uses; None if the data passes through the agent."""
        return self._port

    @property
    def closed(self) -> bool:
        return self._end.closed

    @property
    def reason(self) -> str:
        """Why the tunnel was closed, unless this side closed it."""
        return self._end.reason

    def __enter__(self) -> GuestTunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, target: Target, timeout: float = TIMEOUT) -> GuestSocket:
        """Connect to a service in the guest.

        Raises ConnectError if the connection fails in the guest, CommandError if the guest refuses
        it, and AgentTimeout if the outcome is not known within `timeout` seconds.
        """
        ours, theirs = socket.socketpair()
        outcome = Outcome()
        try:
            self.join(theirs, target, timeout, outcome)
            if not wait_until(outcome.decided.wait, timeout + MARGIN):
                reason = f"no answer about {target}"
                raise AgentTimeout(self._agent.address, "qga-connect", timeout, reason)
            if not outcome.opened:
                reason = f"{target}: {outcome.reason or 'the tunnel is closed'}"
                raise ConnectError(self._agent.address, reason, command="qga-connect")
            connected = GuestSocket(fileno=ours.detach())
        except BaseException:
            ours.close()
            raise
        connected.outcome = outcome
        return connected

    def join(
        self,
        local: socket.socket,
        target: Target,
        timeout: float = TIMEOUT,
        outcome: Outcome | None = None,
    ) -> None:
        """Connect a socket of this host with a service in the guest; closes the socket at the end.

        Returns before the connection is established. Raises CommandError if the guest refuses it,
        and ConnectError if the tunnel is closed.
        """
        try:
            if self.closed:
                raise ConnectError(self._agent.address, self.reason or "the tunnel is closed")
            number = self._agent.tunnel_connect(
                self._number, target.host, target.port, path=target.path, timeout=timeout
            )
            if not 0 < number <= HIGHEST_NUMBER:
                raise ProtocolError(f"{number} is not the number of a connection")
        except BaseException:
            abort(local)
            raise
        patience, outcome = timeout + MARGIN, outcome or Outcome()
        self._joining[local] = outcome
        self._loop.post(lambda: self._add(number, local, outcome, patience))
        if self._is_over:
            self._reset_joining()

    def close(self) -> None:
        """Close all connections. Data sent before still reaches the guest, if its agent runs."""
        if not self._thread.is_alive():
            return
        self._loop.post(lambda: self._end.finish(LAST_BYTES, self._finished.set))
        self._finished.wait(2 * LAST_BYTES)
        self._loop.post(self._end.close)
        self._loop.post(self._loop.stop)
        self._thread.join(LAST_BYTES)

    def _open(self, agent: GuestAgent, ports: DataPorts) -> HostTunnel:
        port = ports.open_free(agent)
        self._port = port.name if port else None
        try:
            self._number = agent.tunnel_open(self._port)
        except BaseException:
            if port:
                port.close()
            raise
        if port:
            return PortTunnel(port, self._loop)
        return PieceTunnel(agent, self._number, self._loop)

    def _run(self) -> None:
        self._loop.post(self._end.start)
        try:
            self._loop.run()
        except Exception as error:  # nobody must wait for what this thread would have done
            self._on_fault(error)
        finally:
            self._is_over = True
            self._reset_joining()
            self._loop.close()

    def _reset_joining(self) -> None:
        """Reset what the thread takes no more. It may end at any moment, such as without memory."""
        while self._joining:
            with suppress(KeyError):  # the other thread was faster
                local, outcome = self._joining.popitem()
                abort(local)
                outcome.end(self.reason or "the tunnel is closed")

    def _add(self, number: int, local: socket.socket, outcome: Outcome, patience: float) -> None:
        del self._joining[local]
        connection = LocalConnection(number, self._end, self._loop, outcome.open, outcome.end)
        connection.begin(local, self._end.refusal(number), patience)

    def _on_fault(self, error: Exception) -> None:
        self._end.on_reset(reason_of(error))
        self._end.close()


def connect(
    agent: GuestAgent, target: Target, timeout: float = TIMEOUT, ports: DataPorts | None = None
) -> GuestSocket:
    """A connection with its own tunnel, which is closed together with it."""
    tunnel = GuestTunnel(agent, ports)
    try:
        connected = tunnel.connect(target, timeout)
    except BaseException:
        tunnel.close()
        raise
    connected.close_with = tunnel.close
    return connected
