"""A program in several guests at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import IO, Optional

import typer

from qga.client.addresses import is_name
from qga.client.data_ports import DataPorts
from qga.client.errors import AgentError
from qga.client.hosts.discovery import find_guests
from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.watch import Target
from qga.client.parallel import side_by_side
from qga.client.results import SIGNAL_STATUS
from qga.ctl import display
from qga.ctl.app import EXEC_FAILED, discard_output, faults
from qga.ctl.program_output import Collected, Lines, print_of
from qga.ctl.relay import FORWARDED, READ_SIZE
from qga.ctl.running import Sink, Wanted, run_with
from qga.ctl.settings import Settings
from qga.ctl.targets import guests_here, targets

NONE = "no running guest with an agent port was found; name one"

BROKEN_PIPE = SIGNAL_STATUS + signal.SIGPIPE


class Signals:
    """The signals for the program of one guest, as in qga.ctl.relay."""

    def __init__(self) -> None:
        # Unlike the descriptors of a pipe, a closed socket cannot be mistaken for a new one.
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)

    def fileno(self) -> int:
        return self._reading.fileno()

    def take(self) -> bytes:
        with suppress(BlockingIOError):
            return self._reading.recv(READ_SIZE)
        return b""

    def put(self, number: int) -> None:
        with suppress(OSError):  # full, or the program has ended
            self._writing.send(bytes([number]))

    def close(self) -> None:
        self._reading.close()
        self._writing.close()


class Post:
    """Passes the signals of this process on to the programs of all guests.

    stopped: whether one of them is to end the programs, so that no more should start.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._open: set[Signals] = set()

    def __enter__(self) -> Post:
        self._before = {each: signal.signal(each, self.deliver) for each in FORWARDED}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def deliver(self, number: int, frame: Optional[FrameType] = None) -> None:
        # After SIGPIPE nobody reads the output of any guest.
        passed = signal.SIGTERM if number == signal.SIGPIPE else number
        self.stopped |= number != signal.SIGWINCH
        for signals in list(self._open):
            signals.put(passed)

    @contextmanager
    def signals(self) -> Iterator[Signals]:
        mine = Signals()
        self._open.add(mine)
        if self.stopped:
            mine.put(signal.SIGTERM)
        try:
            yield mine
        finally:
            self._open.discard(mine)
            mine.close()


class Inputs:
    """The input of the programs: each reads the whole of one file from its beginning."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file = file

    @contextmanager
    def opened(self) -> Iterator[Optional[int]]:
        if self._file is None:
            yield None
            return
        descriptor = os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def inputs(source: Optional[int]) -> Iterator[Inputs]:
    """What can be read only once, such as a pipe, is copied into a file first."""
    if source is None:
        yield Inputs(None)
        return
    with open(source, "rb", closefd=False) as file, tempfile.TemporaryFile() as copy:
        if stat.S_ISREG(os.fstat(source).st_mode):
            yield Inputs(file)
        else:
            shutil.copyfileobj(file, copy)
            copy.flush()
            yield Inputs(copy)


def guests_of(settings: Settings, everywhere: bool) -> list[Target]:
    """The guests that are named, or all that run on this host. typer.Exit if there are none."""
    if not everywhere:
        named = targets(settings, list(settings.others))(LeftOut())
        require_known(settings, named)
        return named
    if settings.named:
        raise typer.BadParameter("--all and the names of guests exclude each other")
    left_out = LeftOut()
    found = guests_here(left_out)
    for line in left_out.lines():
        display.note(line)
    if not found:
        display.say(NONE)
        raise typer.Exit(EXEC_FAILED)
    return found


def require_known(settings: Settings, guests: list[Target]) -> None:
    """typer.BadParameter for a name that no guest has: it may be a word of the program."""
    names = [each.address for each in guests if isinstance(each.address, str)]
    names = [name for name in names if is_name(name)]
    running = find_guests() if names else []
    for name in names:
        if not any(guest.is_called(name) for guest in running):
            reasons = [f"no guest is called '{display.printable(name)}'", settings.guest_doubt]
            raise typer.BadParameter("; ".join(filter(None, reasons)))


def run_in_guests(settings: Settings, guests: list[Target], wanted: Wanted, at_once: int) -> int:
    """Run a program in each of the guests, `at_once` at a time; returns the greatest status."""
    worst = 0
    with inputs(wanted.input) as files, Post() as post:
        tasks = (
            (guest.name, partial(run_in, settings, guest, wanted, files, post))
            for guest in guests
            if not post.stopped
        )
        for name, done in side_by_side(tasks, at_once):
            status = status_of(done)
            worst = max(worst, status)
            if 0 < status < EXEC_FAILED and not settings.structured:
                display.note(f"{name}: exit status {status}")
    return worst


def run_in(settings: Settings, guest: Target, wanted: Wanted, files: Inputs, post: Post) -> int:
    """Run the program in one of the guests; returns its status."""
    agent = settings.agent_at(guest.address, guest.name)
    sink: Sink = Collected(settings, guest.name) if settings.structured else Lines(guest.name)
    with files.opened() as source, post.signals() as signals:
        try:
            ports = DataPorts(agent.address)
            return run_with(agent, ports, wanted._replace(input=source), signals, sink)
        except AgentError as error:
            if settings.structured:
                print_of(settings, guest.name, {"error": str(error)})
            raise


def status_of(done: Future[int]) -> int:
    """The exit status of a program that has ended, or the one for its failure."""
    try:
        with faults(EXEC_FAILED):
            return done.result()
    except typer.Exit as failure:
        return failure.exit_code
    except BrokenPipeError:
        discard_output()
        return BROKEN_PIPE
