"""Events of a guest as they happen: `GuestAgent.watch`.

Events are lines of JSON on a data port. A port does not show whether the agent at its other end
still runs, so the agent is checked after a long silence. If it was restarted, the watch is started
again. There is no other polling. The guest is not trusted: lines are limited in length.
"""

from __future__ import annotations

import json
import math
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from qga.client.data_ports import PREFIX, DataPort, DataPorts, free_ports, guest_ports
from qga.client.errors import AgentError, CommandNotFound, ConnectError, ProtocolError
from qga.client.waits import events_of, pause

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

# Bytes of a line; the longest legitimate ones contain two escaped paths of PATH_MAX bytes.
LONGEST_LINE = 64 * 1024

# Seconds until the first line of a watch.
FIRST_LINE_PATIENCE = 15.0

# Seconds between two attempts to start the watch again.
RETRY_INTERVAL = 1.0

TIMES = range(2**53)  # milliseconds; larger numbers are not exact in JSON

ADD_PORT = "`qgactl channel --data` shows how to add one"
NO_PORT = f"events need a data port or vsock, and this guest has neither: {ADD_PORT}"
IN_USE = f"events need a data port that is free, and all of this guest are in use: {ADD_PORT}"
NO_SOCKET = (
    "the socket of the data port {} is not known on this host, or leads elsewhere: "
    "give its path, as in --data-port {}=PATH"
)


class Event(NamedTuple):
    """An event. name: such as "address-added".

    time: seconds since 1970-01-01 UTC by the guest's clock. details: the other members of the line.
    """

    name: str
    time: float
    details: dict[str, Any]

    def as_line(self) -> dict[str, Any]:
        """The event as the guest sent it."""
        return {"event": self.name, "time-ms": round(self.time * 1000), **self.details}


class Untold(NamedTuple):
    """A kind of events that the guest cannot report, or not in all cases."""

    event: str
    reason: str


class WatchStarted(NamedTuple):
    """The agent's reply. watch: a number that the first line repeats."""

    watch: int
    events: tuple[str, ...]
    agent_started_ms: int
    unavailable: tuple[Untold, ...] = ()


class Wanted(NamedTuple):
    """What to watch; see GuestAgent.watch."""

    kinds: Optional[Sequence[str]] = None
    usage_interval: Optional[int] = None
    usage_percent: int = 90


class Events:
    """The events of a guest. Entering the context starts the watch; iterate over it inside.

    started: the agent's reply to the last start. fileno(): for waiting with select(2) for `next`.
    """

    started: WatchStarted

    def __init__(
        self, agent: GuestAgent, ports: DataPorts, wanted: Wanted, check: float = math.inf
    ) -> None:
        self._agent = agent
        self._ports = ports
        self._wanted = wanted
        self._check = check
        self._port: DataPort | None = None
        self._reported_ms = 0  # the start of the agent whose watch has last begun
        self._buffer = bytearray()

    def __enter__(self) -> Events:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close_port()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.next()
            if event is not None:
                yield event

    def next(self, timeout: float = math.inf) -> Event | None:
        """The next event; None if there is none within `timeout` seconds.

        If the agent stops, the event is "agent-stopped", or "agent-lost" if the agent was killed.
        The next call then waits until the watch can be started again, and "agent-started" is next
        if it is a new agent.
        """
        deadline = time.monotonic() + timeout
        while self._port is None:
            if time.monotonic() >= deadline:
                return None
            if self._start_again():
                return Event("agent-started", self.started.agent_started_ms / 1000, {})
        silence = time.monotonic() + self._check
        try:
            event = self._event(self._port, min(deadline, silence))
        except ConnectError:  # the other end has gone, maybe together with QEMU
            return self._lost()
        if event is not None and event.name == "agent-stopped":
            self._close_port()
        elif event is None and silence <= deadline and not self._is_watched(self._port):
            return self._lost()
        return event

    def _lost(self) -> Event:
        self._close_port()
        return Event("agent-lost", time.time(), {})

    def _start(self) -> None:
        """Start the watch in the agent. Raises AgentError."""
        agent = self._agent
        port = self._ports.open_free(agent)
        if port is None:
            agent.sync()
            raise ConnectError(agent.address, why_no_port(agent), command="qga-watch")
        try:
            self._buffer.clear()
            self.started = agent.watch_start(port.name, *self._wanted)
            self._skip_to_first(port)
        except BaseException:
            port.close()
            raise
        finally:
            agent.close()  # QEMU serves one client at a time, and others may want to connect
        self._port, self._reported_ms = port, self.started.agent_started_ms

    def _start_again(self) -> bool:
        """Returns whether a new agent has started the watch."""
        earlier = self._reported_ms
        try:
            self._start()
        except CommandNotFound:
            raise
        except AgentError:  # it has not restarted yet
            pause(RETRY_INTERVAL)
            return False
        return self._reported_ms != earlier

    def _skip_to_first(self, port: DataPort) -> None:
        """Drop lines that were left over from earlier users of the port."""
        deadline = time.monotonic() + FIRST_LINE_PATIENCE
        while time.monotonic() < deadline:  # a guest may send other lines without end
            line = self._line(port, deadline)
            if line is None:
                break
            with suppress(ProtocolError):
                event = _event_of(line)
                if event.details.get("watch") == self.started.watch:
                    return
        reason = f"the watch did not begin within {FIRST_LINE_PATIENCE:g} s"
        raise ProtocolError(reason, address=self._agent.address, command="qga-watch")

    def _event(self, port: DataPort, deadline: float) -> Event | None:
        line = self._line(port, deadline)
        try:
            return None if line is None else _event_of(line)
        except ProtocolError as error:
            error.address, error.command = self._agent.address, "qga-watch"
            raise

    def _line(self, port: DataPort, deadline: float) -> bytes | None:
        """The next line without its newline; None if there is none by the deadline."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > LONGEST_LINE:
                raise ProtocolError(
                    f"a line of the guest has more than {LONGEST_LINE} bytes",
                    address=self._agent.address,
                    command="qga-watch",
                )
            if not _readable(port, deadline):
                return None
            self._buffer += port.receive()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _is_watched(self, port: DataPort) -> bool:
        """Whether the agent still has the port open. A vsock port would be closed otherwise."""
        if port.name.startswith("vsock:"):
            return True
        try:
            return any(each.name == port.name and each.busy for each in guest_ports(self._agent))
        except AgentError:
            return False
        finally:
            self._agent.close()

    def _close_port(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None


def _readable(port: DataPort, deadline: float) -> bool:
    poll = select.poll()
    poll.register(port, select.POLLIN)
    return bool(events_of(poll, deadline))


def why_no_port(agent: GuestAgent) -> str:
    """Why no data port could be opened, and what to do."""
    ports = [port for port in guest_ports(agent) if port.name.startswith(PREFIX)]
    free = free_ports(ports)
    if free:
        return NO_SOCKET.format(free[0], free[0])
    return IN_USE if ports else NO_PORT


def _event_of(line: bytes) -> Event:
    try:
        members = json.loads(line, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise ProtocolError("a line of the guest is not JSON") from None
    if not isinstance(members, dict):
        raise ProtocolError("a line of the guest is not an object")
    name, moment = members.pop("event", None), members.pop("time-ms", None)
    if not isinstance(name, str) or type(moment) is not int or moment not in TIMES:
        raise ProtocolError("a line of the guest lacks 'event' or 'time-ms'")
    return Event(name, moment / 1000, members)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
