"""A program of the host, run while a guest's filesystems are frozen.

What must stay true: from the moment when the guest may be frozen, no signal that a process can
catch ends us before the thaw. While the freeze is under way, a signal breaks it off and undoes
it. While the program runs, signals are handed on to it, but for those of the terminal, which it
has got itself. While the thaw is under way they wait.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, Optional

from qga.client.agent import GuestAgent

# Those of faults in a program, and those that end none.
FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS", "SIGSTKFLT"}
HARMLESS = {"SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"}
BEYOND_US = {"SIGKILL", "SIGSTOP"}

# Signals by which a process ends that does not expect them, as by an administrator's kill -USR1.
ENDING = {
    number
    for number in signal.valid_signals()
    if getattr(number, "name", "") not in FAULTS | HARMLESS | BEYOND_US
}

KILLED = 128  # a shell's way to tell a program that a signal has ended


class Interrupted(BaseException):
    """A signal broke the freeze off."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = KILLED + number


class CannotRun(Exception):
    """The system does not start the program; the message names it."""


class Outcome(NamedTuple):
    """How many filesystems were frozen and thawed, and how the program ended."""

    frozen: int
    thawed: Optional[int] = None
    status: Optional[int] = None


def freeze_and_run(
    agent: GuestAgent, mountpoints: Sequence[str] | None, argv: Sequence[str]
) -> Outcome:
    """Freeze, run a program, and thaw; without a program freeze only."""
    with breaking_off():
        try:
            frozen = agent.freeze(mountpoints)
            if not argv:
                return Outcome(frozen.count)
            with held() as mask, frozen:
                status = run(argv, mask)
            return Outcome(frozen.count, frozen.thawed, status)
        except Interrupted:
            agent.thaw()  # it may have come when the freeze had just succeeded
            raise


@contextmanager
def breaking_off() -> Iterator[None]:
    """The first signal raises Interrupted, and no other does."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    wanted = [number for number in ENDING if handlers[number] is not signal.SIG_IGN]

    def break_off(number: int, _frame: Any) -> NoReturn:
        for each in wanted:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    for number in wanted:
        signal.signal(number, break_off)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, handlers[number])


@contextmanager
def held() -> Iterator[set[int]]:
    """Signals wait, and are forgotten in the end; gives the mask that was before."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDING, signal.SIGCHLD})
    try:
        yield {int(number) for number in mask}
    finally:
        while signal.sigtimedwait(ENDING, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run(argv: Sequence[str], mask: set[int]) -> int:
    """Run a program with signals held; how it ended, as a shell has it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # stopped, it would keep the guest frozen
    try:
        pid = os.posix_spawnp(argv[0], list(argv), os.environ, setsigmask=mask)
    except OSError as error:
        raise CannotRun(f"cannot run {argv[0]}: {error.strerror}") from None
    while True:
        arrived = signal.sigwaitinfo({*ENDING, signal.SIGCHLD})
        if arrived.si_signo != signal.SIGCHLD:
            if arrived.si_code <= 0:  # sent by a process, not by the terminal
                os.kill(pid, arrived.si_signo)
            continue
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else KILLED - code
