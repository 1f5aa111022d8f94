"""The local terminal while it shows a terminal of the guest.

It must stay true that the terminal is restored, however qgactl exits, and while it is stopped.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from types import FrameType

from qga.client.programs import TerminalSize
from qga.ctl.interrupts import ENDING, deferred

ESCAPE, LEAVE = ord("~"), ord(".")
LINE_ENDS = b"\r\n"


def undisturbed() -> AbstractContextManager[None]:
    """For a write to the terminal: signals that restore the terminal wait until its end."""
    return deferred(*ENDING, signal.SIGTSTP)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Signals that would end this process at once, and leave the terminal as it is then, raise
    KeyboardInterrupt instead."""
    caught = [each for each in ENDING if signal.getsignal(each) is signal.SIG_DFL]
    for each in caught:
        signal.signal(each, signal.default_int_handler)
    try:
        yield
    finally:
        for each in caught:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def changed(change: Callable[[], object], restore: Callable[[], object]) -> Iterator[None]:
    """`change` the terminal, and `restore` it at the end and while ^Z has stopped this process.

    Such contexts can be nested. What writes to the terminal within is `undisturbed`.
    """
    before = signal.getsignal(signal.SIGTSTP)

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # it is being carried out
        with deferred(*ENDING):
            restore()
        signal.signal(number, before)
        signal.raise_signal(number)  # until SIGCONT
        signal.signal(number, stop)
        with undisturbed():
            change()
        signal.raise_signal(signal.SIGWINCH)  # nobody has told us of a new size

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, stop)
    try:
        with undisturbed():
            change()
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
        with undisturbed(), suppress(OSError, termios.error):  # the terminal has gone
            restore()


def raw(descriptor: int) -> AbstractContextManager[None]:
    """Each key goes to the guest as it is, including ^C."""
    # TCSADRAIN keeps what was typed ahead
    change = partial(tty.setraw, descriptor, termios.TCSADRAIN)
    return changed(change, restoring(descriptor))


def restoring(descriptor: int) -> Callable[[], None]:
    """A function that gives the terminal the settings that it has now."""
    return partial(termios.tcsetattr, descriptor, termios.TCSADRAIN, termios.tcgetattr(descriptor))


def size() -> TerminalSize:
    """The size of the local terminal, or 24 by 80."""
    for stream in (sys.stdout, sys.stdin, sys.stderr):
        try:
            columns, rows = os.get_terminal_size(stream.fileno())
        except OSError:
            continue
        if rows and columns:
            return TerminalSize(rows, columns)
    return TerminalSize(24, 80)


class Escapes:
    """Finds `~.` at the beginning of a line, which leaves; `~~` there sends one `~`."""

    def __init__(self) -> None:
        self.leaving = False
        self._at_line_start = True
        self._escaped = False

    def passed(self, data: bytes) -> bytes:
        """The typed bytes that are for the guest."""
        kept = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte == LEAVE:
                    self.leaving = True
                    break
                if byte != ESCAPE:
                    kept.append(ESCAPE)
            elif byte == ESCAPE and self._at_line_start:
                self._escaped = True
                continue
            kept.append(byte)
            self._at_line_start = byte in LINE_ENDS
        return bytes(kept)
