"""Connects a program in the guest with qgactl's input, output and signals.

One loop in one thread waits for input, for output at the data port and for signals, and polls the
agent: soon after something moved, and less and less often while nothing does. Between two polls it
lets other clients of the agent's socket have their turn. What must stay true: with a timeout it
returns, whatever the guest reports. While the agent cannot be asked, because it is silent, frozen
or busy with another client, the program counts as running, and what is sent to it is kept.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from qga.client.errors import AgentError, AgentTimeout, GuestFrozen
from qga.client.programs import Output, Program, TerminalSize, unless_exited
from qga.client.results import SIGNAL_STATUS
from qga.client.turns import Turns
from qga.client.wire import MAX_REQUEST
from qga.ctl import display
from qga.ctl.interrupts import ENDING
from qga.ctl.terminal import Escapes

# Pauses between two polls, in seconds: the first, the longest, and the growth.
FIRST_DELAY, LONGEST_DELAY, DELAY_GROWTH = 0.001, 0.2, 1.4

# Seconds that a guest may be silent while a program runs: it may be paused for a snapshot.
SILENCE = 600.0

# The capacity of a pipe, pipe(7).
READ_SIZE = 64 * 1024

# Why the agent cannot be asked about the program, and the seconds after which the user is told.
SILENT = "the guest does not answer"
FROZEN = "the guest's filesystems are frozen"
BUSY = "another client has the agent's socket"
LONG_WAIT = 5.0

UNKILLED = "the guest reports that it still runs, although it was killed"

NOTHING = Output(b"", b"")

# Seconds from SIGTERM to SIGKILL.
GRACE = 3.0

TIMED_OUT = 124  # as timeout(1)

FORWARDED = (*ENDING, signal.SIGWINCH, signal.SIGPIPE)

# Bytes of input in a request of guest-exec, as base64, with 1 MiB for everything else.
MAX_INPUT = (MAX_REQUEST - 1024 * 1024) // 4 * 3

Sink = Callable[[bytes], None]


class SignalSource(Protocol):
    """Signals for a relay: readable at `fileno` when there are some."""

    def fileno(self) -> int: ...

    def take(self) -> bytes:
        """The numbers of the signals that have arrived."""


class Signals:
    """Turns signals into bytes to read, which wake up select(2) and interrupt nothing else."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        # signal.set_wakeup_fd requires it, so that a handler never waits.
        os.set_blocking(self._writing, False)
        self._before = {each: signal.signal(each, ignore) for each in self._numbers}
        # A full pipe is no loss: one byte wakes us up.
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for each, handler in self._before.items():
            signal.signal(each, handler)
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        return self._reading

    def take(self) -> bytes:
        """The numbers of the signals that have arrived."""
        try:
            arrived = os.read(self._reading, READ_SIZE)
        except BlockingIOError:
            return b""
        return bytes(number for number in arrived if number in self._numbers)


def ignore(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the number is written to the wakeup descriptor."""


def read_all(descriptor: int, signals: SignalSource) -> bytes:
    """Read all input. Raises AgentError if it does not fit into a request."""
    data = bytearray()
    while len(data) <= MAX_INPUT:
        ready, _, _ = select.select([descriptor, signals.fileno()], [], [])
        for number in signals.take():
            if number != signal.SIGWINCH:
                raise Left(SIGNAL_STATUS + number)
        if descriptor in ready:
            piece = os.read(descriptor, READ_SIZE)
            if not piece:
                return bytes(data)
            data += piece
    raise AgentError(f"guest-exec takes at most {MAX_INPUT} bytes of input")


class Left(Exception):
    """The user has disconnected; `status` is the exit status of qgactl."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Relay:
    """Passes bytes and signals between qgactl and a program until it exits.

    input: a descriptor, or None for no input.
    size: returns the size of the local terminal, if the program has a terminal.
    escapes: filters the input, if it comes from a keyboard.
    """

    def __init__(
        self,
        program: Program,
        signals: SignalSource,
        input: int | None,
        out: Sink,
        err: Sink,
        *,
        timeout: float,
        size: Callable[[], TerminalSize] | None = None,
        escapes: Escapes | None = None,
    ) -> None:
        self.program = program
        self.signals = signals
        self.input = input
        self.out = out
        self.err = err
        self.size = size
        self.escapes = escapes
        self.complaint = ""
        """Why it is unknown whether a program that timed out has exited."""
        # The agent ends the program itself, if it can: we do if it does not.
        self._deadline = time.monotonic() + timeout + (GRACE if program.is_bounded else 0)
        self._endings = iter(("TERM", "KILL"))
        self.timed_out = self._interrupted = False
        self._pending = b""
        self._orders: dict[str, Callable[[], None]] = {}
        """Requests that are due, other than for input and output."""
        self._turns = Turns(program.agent)
        self._obstacle = ""
        """Why the agent cannot be asked now."""
        self._obstacle_since = 0.0
        self._noted = False
        self._delay = FIRST_DELAY
        self._next_poll = 0.0

    def run(self) -> int:
        """The program's exit status, as in a shell; `TIMED_OUT` if it took too long."""
        try:
            return self._run()
        except AgentError as error:
            if not self.timed_out:
                raise
            # Closing would wait for an exit that the guest does not report.
            self.program.abandon()
            self.complaint = error.reason
            return TIMED_OUT

    def _run(self) -> int:
        if self.input is None:
            self._orders["end"] = self.program.end_input
        while self.program.result is None:
            self._wait()
            self._pass_signals()
            self._pass_output()
            self._pass_input()
            self._pass_orders()
            self._watch_time()
        self.timed_out |= self.program.result.ended_by == "timeout"
        return TIMED_OUT if self.timed_out else self.program.result.status

    def _wait(self) -> None:
        """Wait until something arrives, or it is time to poll."""
        reading = [self.signals.fileno()]
        writing = []
        if self.input is not None and self._wants_input:
            reading.append(self.input)
        if self.program.port:
            reading.append(self.program.port.fileno())
            if self._pending:
                writing.append(self.program.port.fileno())
        pause = max(0.0, min(self._next_poll, self._deadline) - time.monotonic())
        ready, _, _ = select.select(reading, writing, [], pause)
        self._typed = self.input in ready

    @property
    def _wants_input(self) -> bool:
        if self.escapes:  # one may be typed at any time
            return len(self._pending) < READ_SIZE
        return not self._pending and self._takes_input

    @property
    def _takes_input(self) -> bool:
        return not self._obstacle or self.program.port is not None

    def _pass_signals(self) -> None:
        for number in self.signals.take():
            if number == signal.SIGWINCH:
                if self.size:
                    self._orders["resize"] = self._resize
            elif number == signal.SIGINT and not (self._interrupted or self._noted):
                self._interrupted = True
                self._orders["interrupt"] = lambda: self._signal("INT")
            elif number in ENDING or self._interrupted:
                raise Left(SIGNAL_STATUS + number)

    def _pass_orders(self) -> None:
        while self._orders and not self._obstacle and self.program.result is None:
            name = next(iter(self._orders))
            try:
                self._orders[name]()
            except GuestFrozen:
                self._hindered(FROZEN)
                return
            del self._orders[name]

    def _resize(self) -> None:
        if self.size:
            with unless_exited():
                self.program.resize(self.size())

    def _pass_output(self) -> None:
        data = self.program.receive()
        self.out(data)
        # Output often comes in bursts.
        if data:
            self._hurry()
        if time.monotonic() < self._next_poll:
            return
        stdout, stderr = self._poll()
        self.out(stdout)
        self.err(stderr)
        if stdout or stderr:
            self._hurry()
        if self._obstacle in ("", FROZEN) and not self.program.exited:
            self._give_way()
        self._next_poll = time.monotonic() + self._delay
        self._delay = min(self._delay * DELAY_GROWTH, LONGEST_DELAY)

    def _poll(self) -> Output:
        """What the agent has for us; nothing while it cannot be asked, unless that is too long."""
        asked = time.monotonic()
        try:
            if not self._turns.is_ours():
                return self._hindered(BUSY)
            if self._obstacle == FROZEN and self.program.agent.freeze_status() != "thawed":
                return self._hindered(FROZEN)
            output = self.program.poll()
        except GuestFrozen:
            return self._hindered(FROZEN)
        except AgentTimeout:
            self._hindered(SILENT, asked)
            if self.timed_out or time.monotonic() - self._obstacle_since > SILENCE:
                raise
            return NOTHING
        self._obstacle, self._noted = "", False
        return output

    def _hindered(self, obstacle: str, since: float | None = None) -> Output:
        """The agent cannot be asked: remember why, and tell the user if that lasts."""
        now = time.monotonic()
        if self._obstacle != obstacle:
            self._obstacle, self._noted = obstacle, False
            self._obstacle_since = now if since is None else since
        long = obstacle == SILENT or now - self._obstacle_since > LONG_WAIT
        if long and not self._noted:
            self._noted = True
            how = "Enter ~." if self.escapes else "^C"
            display.note(f"{obstacle}; waiting ({how} to quit)")
        return NOTHING

    def _give_way(self) -> None:
        """Let other clients have the agent's socket, if some wait for it."""
        self._turns.give_way()
        if not self._turns.is_ours():
            self._hindered(BUSY)

    def _pass_input(self) -> None:
        if self._typed and self.input is not None:
            self._read_input(self.input)
        if self._pending and self._takes_input:
            try:
                count = self.program.write(self._pending)
            except GuestFrozen:
                self._hindered(FROZEN)
                return
            self._pending = self._pending[count:]
            if count:
                self._hurry()

    def _read_input(self, descriptor: int) -> None:
        data = os.read(descriptor, READ_SIZE)
        if not data:
            self.input = None
            self._orders["end"] = self.program.end_input
            return
        self._pending += self.escapes.passed(data) if self.escapes else data
        if self.escapes and self.escapes.leaving:
            raise Left(SIGNAL_STATUS + signal.SIGHUP)

    def _watch_time(self) -> None:
        """After the timeout, send SIGTERM, then SIGKILL, then give up."""
        if time.monotonic() < self._deadline or self.program.result:
            return
        self.timed_out = True
        self._deadline = time.monotonic() + GRACE
        name = next(self._endings, "")
        if not name:
            raise AgentError(self._obstacle or UNKILLED)
        # A kill that hangs is not the program's fault.
        with suppress(AgentTimeout, GuestFrozen):
            self._signal(name)

    def _signal(self, name: str) -> None:
        with unless_exited():
            self.program.signal(name)
        self._hurry()

    def _hurry(self) -> None:
        self._delay = FIRST_DELAY
        self._next_poll = min(self._next_poll, time.monotonic() + FIRST_DELAY)
