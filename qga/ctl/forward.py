"""Ports and sockets of this host that lead to services in the guest; for ssh, one at a time."""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock, Thread
from types import FrameType
from typing import Optional, TypeVar

import typer

from qga.client.agent import GuestAgent
from qga.client.errors import AgentError
from qga.client.results import SIGNAL_STATUS
from qga.client.sockets import pause_without_resources
from qga.client.tunnels import GuestSocket, GuestTunnel, Outcome, Target, abort
from qga.ctl import display, standard_input
from qga.ctl.app import FAILED, command, faults
from qga.ctl.command import RUN
from qga.ctl.forwards import (
    Forward,
    Listen,
    is_local,
    may_be_forward,
    open_listener,
    parse_forward,
    parse_target,
    shown,
    why,
)
from qga.ctl.guest_words import Found, Line, Surroundings, first_word
from qga.ctl.interrupts import ENDING, SIGNALS
from qga.ctl.relay import READ_SIZE, Signals
from qga.ctl.settings import Settings
from qga.ctl.standard_output import write_all

T = TypeVar("T")

FAILURE_INTERVAL = 60.0  # seconds
MOST_FAILURES = 10

SUFFIX = ".qga"
"""A suffix of a guest's name in ssh_config, which distinguishes it from other hosts."""


def starts_with_forward(words: list[str], _line: Line, _surroundings: Surroundings) -> bool:
    return may_be_forward(words[0])


def has_service_only(words: list[str], _line: Line, surroundings: Surroundings) -> bool:
    return len(words) == 1 and surroundings.has_guest()


GUEST_OF_FORWARD = first_word("GUEST 8080:127.0.0.1:80", starts_with_forward)
GUEST_OF_PROXY = first_word("GUEST 22", has_service_only)


def without_suffix(line: Line, surroundings: Surroundings) -> Found:
    found = GUEST_OF_PROXY.find(line, surroundings)
    return found._replace(guest=found.guest.removesuffix(SUFFIX))


@command(RUN, GUEST_OF_FORWARD)
def forward(
    context: typer.Context,
    forwards: list[str] = typer.Argument(
        ...,
        metavar="[ADDR:]PORT:[HOST:]PORT...",
        help="Where to listen, and the service in the guest. Either side can be the path of a "
        "unix socket.",
        show_default=False,
    ),
) -> None:
    """Forward ports of this host to services in the guest.

    No network is needed: connections pass through a data port of the guest, or more slowly through
    the agent if none is free. The guest looks up HOST (default: 127.0.0.1). qgactl listens on
    127.0.0.1 unless ADDR is given; port 0 chooses a free port. It prints what it forwards, and
    runs until ^C.

    \b
    Examples:
      qgactl forward web 8080:127.0.0.1:80
      qgactl forward web 8080:80 5432:db.internal:5432
      qgactl forward web /tmp/docker.sock:/run/docker.sock
    """
    settings: Settings = context.obj
    wanted = [checked(parse_forward, text) for text in forwards]
    with Signals(*ENDING) as signals, faults(), settings.agent() as agent, ExitStack() as stack:
        forwarder = stack.enter_context(Forwarder(settings, agent))
        for each in wanted:
            stack.enter_context(forwarder.listening(each))
        status = forwarder.run(signals)
    raise typer.Exit(status)


@command(RUN, GUEST_OF_PROXY._replace(find=without_suffix))
def proxy(
    context: typer.Context,
    service: str = typer.Argument(
        ...,
        metavar="[HOST:]PORT",
        help="The service in the guest, or the path of a unix socket there.",
        show_default=False,
    ),
) -> None:
    """Connect standard input and output to a service in the guest.

    This is for ssh's ProxyCommand. No network is needed. End-of-file is passed on, and qgactl exits
    when the service has closed the connection. The name of the guest may end with .qga, so that
    ssh_config can distinguish guests from other hosts.

    \b
    Examples:
      qgactl proxy web 22
      qgactl proxy web /run/docker.sock
      ssh -o 'ProxyCommand qgactl proxy %h %p' root@web
    """
    settings: Settings = context.obj
    target = checked(parse_target, service)
    for each in SIGNALS:
        signal.signal(each, leave)
    with faults(), settings.agent() as agent, GuestTunnel(agent, settings.ports()) as tunnel:
        connection = tunnel.connect(target)
        if tunnel.port:
            agent.close()  # other clients may want to connect
        pass_through(connection)


def leave(number: int, _frame: Optional[FrameType]) -> None:
    raise typer.Exit(SIGNAL_STATUS + number)


def checked(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(display.printable(str(error))) from None


def pass_through(connection: GuestSocket) -> None:
    """Transfer data until the service closes the connection."""
    Thread(target=pass_input, args=(connection,), daemon=True).start()
    try:
        while data := connection.recv(READ_SIZE):
            write_all(sys.stdout.fileno(), data)
    except ConnectionResetError as error:
        display.say(str(error))
        raise typer.Exit(FAILED) from None


def pass_input(connection: GuestSocket) -> None:
    with suppress(OSError):  # closed in the meantime
        while data := read_input(connection):
            connection.sendall(data, socket.MSG_NOSIGNAL)
        connection.shutdown(socket.SHUT_WR)


def read_input(connection: GuestSocket) -> bytes:
    """Read some of it. An error ends the connection, which nobody else would end."""
    try:
        return standard_input.read(READ_SIZE)
    except OSError as error:
        connection.outcome.end(f"standard input: {error.strerror}")
        connection.shutdown(socket.SHUT_RD)  # wakes up the other thread
        raise


class Failures:
    """Reports connections that fail. A client may try again and again, and the guest has each fail
    for another reason: within FAILURE_INTERVAL each reason is reported once, and MOST_FAILURES."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._reported: set[tuple[Target, str]] = set()
        self._end = 0.0

    def report(self, target: Target, reason: str, say: Callable[[str], None]) -> None:
        """Any thread may call this."""
        with self._lock:
            now = time.monotonic()
            if now >= self._end:
                self._reported, self._end = set(), now + FAILURE_INTERVAL
            if (target, reason) in self._reported or len(self._reported) == MOST_FAILURES:
                return
            self._reported.add((target, reason))
        say(f"{target}: {reason}")


class Forwarder:
    """Accepts connections, and passes them on through one tunnel. Use it as a context manager."""

    def __init__(self, settings: Settings, agent: GuestAgent) -> None:
        self._settings = settings
        self._agent = agent
        self._tunnel: Optional[GuestTunnel] = None
        self._listeners: dict[int, tuple[socket.socket, Target]] = {}
        self._failures = Failures()

    def __enter__(self) -> "Forwarder":
        self._open_tunnel()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._tunnel:
            self._tunnel.close()

    @contextmanager
    def listening(self, wanted: Forward) -> Iterator[None]:
        """Listen for one forward, and say so."""
        with opened(wanted.listen) as listener:
            listener.setblocking(False)
            self._listeners[listener.fileno()] = (listener, wanted.target)
            display.confirm(f"{shown(listener)} -> {self._settings.guest} {wanted.target}")
            sys.stdout.flush()
            if not is_local(listener):
                display.note(f"everyone who can reach {shown(listener)} can use this forward")
            yield

    def run(self, signals: Signals) -> int:
        """Serve until a signal arrives; returns the exit status."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a note that nobody reads ends nothing
        poll = select.poll()
        for fd in (signals.fileno(), *self._listeners):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd in self._listeners:
                    self._accept(*self._listeners[fd])
            for number in signals.take():
                return SIGNAL_STATUS + number

    def _accept(self, listener: socket.socket, target: Target) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:  # the client has disconnected, or no descriptor is left
            pause_without_resources(error)
            return
        try:
            self._join(connection, target)
        except AgentError as error:
            self._failures.report(target, error.reason, display.say)
        self._let_others_in()

    def _join(self, connection: socket.socket, target: Target) -> None:
        """Pass a connection on, or reset it. Raises AgentError."""
        try:
            tunnel = self._open_tunnel()
        except BaseException:
            abort(connection)
            raise
        outcome = Outcome(lambda reason: self._failures.report(target, reason, display.note))
        tunnel.join(connection, target, outcome=outcome)

    def _open_tunnel(self) -> GuestTunnel:
        """The tunnel; a new one if the last one was closed."""
        if self._tunnel is None or self._tunnel.closed:
            if self._tunnel:
                self._tunnel.close()
            self._tunnel = GuestTunnel(self._agent, self._settings.ports())
            if not self._tunnel.port:
                display.note("no data port is free: data passes through the agent, which is slower")
        return self._tunnel

    def _let_others_in(self) -> None:
        """Disconnect, because QEMU serves one client of the agent's channel at a time."""
        if self._tunnel and self._tunnel.port:
            self._agent.close()


@contextmanager
def opened(listen: Listen) -> Iterator[socket.socket]:
    try:
        listener = open_listener(listen)
    except (OSError, UnicodeError) as error:
        place = listen.path or Target(listen.host, listen.port)
        display.say(f"cannot listen on {place}: {why(error)}")
        raise typer.Exit(FAILED) from None
    try:
        yield listener
    finally:
        listener.close()
        if listen.path is not None:
            with suppress(OSError):
                os.unlink(listen.path)
