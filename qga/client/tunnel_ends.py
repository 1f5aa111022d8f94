"""The host's end of a tunnel: over a data port, or in pieces through the agent.

Everything here happens on the loop of the tunnel's thread.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from qga.client.data_ports import CLOSED, DataPort
from qga.client.errors import AgentError, ConnectError, GuestFrozen
from qga.client.turns import Turns
from qga.loop import Loop, Timer
from qga.tunnels.connection import Connection
from qga.tunnels.frames import (
    CREDIT,
    ECHO,
    MAX_FRAME,
    OPENED,
    WINDOW,
    Frame,
    credit_frame,
    frame,
    reset_frame,
)
from qga.tunnels.tunnel import Tunnel

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

# Seconds of silence after which the guest is checked, and after which it is then given up.
SILENCE = 10.0
PATIENCE = 30.0

# Connections of a tunnel; the agent's limit for a channel.
MOST_CONNECTIONS = 256

# Pauses between two polls, in seconds: the first, the longest, without connections; the growth.
FIRST_DELAY, LONGEST_DELAY, IDLE_DELAY = 0.001, 0.2, 20.0
DELAY_GROWTH = 1.4

# Bytes of a request to the agent, before base64.
PIECE = 128 * 1024

FULL = f"{MOST_CONNECTIONS} connections are open already; close one first"
UNKNOWN = "the agent did not report whether it is connected"
SILENT = "the agent in the guest no longer answers"


class LocalConnection(Connection):
    """A connection between the tunnel and a socket of this host.

    on_opened: called when it is established. on_end: called when it is closed, with a reason if it
    was reset. It is reset if the guest does not report in time that it is established.
    """

    def __init__(
        self,
        number: int,
        tunnel: HostTunnel,
        loop: Loop,
        on_opened: Callable[[], None],
        on_end: Callable[[str], None],
    ) -> None:
        super().__init__(number, tunnel, loop, lambda: None)
        self._host_tunnel = tunnel
        self._on_opened = on_opened
        self._on_end = on_end
        self._reason = ""
        self._timer: Timer | None = None

    def begin(self, local: socket.socket, reason: str, patience: float) -> None:
        """Let the guest begin, within `patience` seconds.

        reason: set if the tunnel has been closed in the meantime, or has too many connections.
        """
        self._reason = reason
        self.attach(local)
        if reason:
            self.close()
            return
        self._tunnel.add(self)
        self._timer = self._loop.call_later(patience, self._give_up)
        self._tunnel.send(credit_frame(self.number, CREDIT, WINDOW))

    def take(self, given: Frame) -> None:
        if given.kind == OPENED:
            self._forget_timer()
            self._on_opened()
            self.take_credit(given.credit)
        else:
            super().take(given)

    def on_reset(self, reason: str) -> None:
        self._reason = reason or "reset in the guest"

    def _give_up(self) -> None:
        self._reason = UNKNOWN
        self.reset(UNKNOWN)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_close(self) -> None:
        self._forget_timer()
        reason = "" if self._is_complete else self._reason or self._host_tunnel.reason
        self._on_end(reason)


class HostTunnel(Tunnel):
    """reason: why the tunnel was closed, unless this side closed it."""

    reason = ""
    _on_finished: Callable[[], None] | None = None
    _timer: Timer | None = None

    def refusal(self, number: int) -> str:
        """Why no connection with this number can be added; "" if one can."""
        if number in self.connections:
            self.close(f"the guest used the number {number} for two connections")
            self.on_reset("the guest gave two connections one number")
        elif not self.closed and len(self.connections) >= MOST_CONNECTIONS:
            self.send(reset_frame(number, FULL))
            return FULL
        return (self.reason or "the tunnel is closed") if self.closed else ""

    def on_reset(self, reason: str) -> None:
        self.reason = self.reason or f"the tunnel has ended: {reason}"

    def finish(self, patience: float, on_finished: Callable[[], None]) -> None:
        """Call `on_finished` when everything was received, or after `patience` seconds."""
        if self.closed:
            on_finished()
            return
        self._on_finished = on_finished
        self._loop.call_later(patience, self._finished)
        self.send(frame(0, ECHO, b"end"))

    def on_echo(self, data: bytes) -> None:
        if data == b"end":
            self._finished()

    def _finished(self) -> None:
        on_finished, self._on_finished = self._on_finished, None
        if on_finished is not None:
            on_finished()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fail(self, reason: str) -> None:
        self.on_reset(reason)
        self.close()
        self._finished()


class PortTunnel(HostTunnel):
    """A tunnel over a data port, which it closes at the end."""

    def __init__(self, port: DataPort, loop: Loop) -> None:
        super().__init__(loop, lambda: None)
        self._port = port
        self._blocked = False
        self._heard = time.monotonic()

    @property
    def has_room(self) -> bool:
        return len(self._unsent) < MAX_FRAME

    def start(self) -> None:
        self._loop.watch(self._port.fileno(), self._on_events, select.EPOLLIN)
        self._timer = self._loop.call_later(SILENCE, self._look)

    def do_write(self, data: bytes | memoryview) -> int:
        try:
            count = self._port.send(data)
        except ConnectError:
            self._loop.post(lambda: self._fail(CLOSED))
            return len(data)
        self._await_room(count < len(data))
        return count

    def do_close(self) -> None:
        self._forget_timer()
        self._loop.unwatch(self._port.fileno())
        self._port.close()

    def _on_events(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._await_room(False)
            self._flush()
            self._let_go()
        if events & ~select.EPOLLOUT and not self.closed:
            self._take()

    def _await_room(self, wait: bool) -> None:
        """Start or stop watching for QEMU to accept more bytes."""
        if wait != self._blocked:
            self._blocked = wait
            out = select.EPOLLOUT if wait else 0
            self._loop.rewatch(self._port.fileno(), select.EPOLLIN | out)

    def _take(self) -> None:
        try:
            data = self._port.receive()
        except ConnectError:
            self._fail(CLOSED)
            return
        self._heard = time.monotonic()
        self.receive(data)

    def _look(self) -> None:
        """Check a silent guest: its agent may have been killed."""
        silence = time.monotonic() - self._heard
        if self.connections and silence > SILENCE + PATIENCE:
            self._fail(SILENT)
            return
        if not self.connections:
            self._heard = time.monotonic()
        elif silence > SILENCE:
            self.send(frame(0, ECHO, b"?"))
        self._timer = self._loop.call_later(SILENCE, self._look)


class PieceTunnel(HostTunnel):
    """A tunnel in pieces through the agent, which is polled: soon after something moved, and less
    and less often while nothing does."""

    def __init__(self, agent: GuestAgent, number: int, loop: Loop) -> None:
        super().__init__(loop, lambda: None)
        self._agent = agent
        self._number = number
        self._delay = FIRST_DELAY
        self._turns = Turns(agent)

    @property
    def has_room(self) -> bool:
        return len(self._unsent) < PIECE

    def start(self) -> None:
        self._pause = 0.0
        self._timer = self._loop.call_later(0, self._poll)

    def do_write(self, data: bytes | memoryview) -> int:
        """Buffer the data for the next poll, which follows soon."""
        if self._pause > FIRST_DELAY:
            self._poll_after(0)
        return 0

    def do_close(self) -> None:
        self._forget_timer()
        with suppress(AgentError):
            self._agent.tunnel_close(self._number)

    def _poll_after(self, seconds: float) -> None:
        self._forget_timer()
        self._pause = seconds
        self._timer = self._loop.call_later(seconds, self._poll)

    def _poll(self) -> None:
        data, came = bytes(self._unsent[:PIECE]), b""
        try:
            if self._turns.is_ours():
                came = self._agent.tunnel_exchange(self._number, data)
                del self._unsent[: len(data)]
            else:
                data = b""
        except GuestFrozen:
            data = b""
        except AgentError as error:
            self._fail(str(error))
            return
        self.receive(came)
        self._let_go()
        if self.closed:
            return
        if data or came:
            self._delay = FIRST_DELAY
        else:
            self._delay = min(self._delay * DELAY_GROWTH, LONGEST_DELAY)
        self._poll_after(self._let_others_in())

    def _let_others_in(self) -> float:
        """Share the agent's socket with other clients; returns the seconds until the next poll."""
        if self.connections or self._unsent:
            self._turns.give_way()
            return self._delay
        self._turns.leave()
        return IDLE_DELAY
