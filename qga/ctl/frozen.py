"""A program of the host, run while a guest's filesystems are frozen.

What must stay true: from the moment when the guest may be frozen, no signal that a process can
catch terminates qgactl before the thaw. During the freeze a signal cancels and undoes it. While
the program runs, signals are forwarded to it, except those of the terminal, which it gets itself.
During the thaw they stay pending.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn, Optional

from qga.client.agent import GuestAgent
from qga.client.errors import AgentError

# Signals of faults in a program, and those that terminate none.
FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS", "SIGSTKFLT"}
HARMLESS = {"SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"}
BEYOND_US = {"SIGKILL", "SIGSTOP"}

# Signals that terminate a process by default, such as an administrator's kill -USR1.
ENDING = {
    number
    for number in signal.valid_signals()
    if getattr(number, "name", "") not in FAULTS | HARMLESS | BEYOND_US
}

KILLED = 128  # added to the signal's number, as shells do


class Interrupted(BaseException):
    """A signal cancelled the freeze."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = KILLED + number


class CannotRun(Exception):
    """The program cannot be started; the message names it."""


class Outcome(NamedTuple):
    """How many filesystems were frozen and thawed, and the exit status of the program."""

    frozen: int
    thawed: Optional[int] = None
    status: Optional[int] = None


def freeze_and_run(
    agent: GuestAgent, mountpoints: Sequence[str] | None, argv: Sequence[str]
) -> Outcome:
    """Freeze, run a program, and thaw; without a program freeze only."""
    with thawed_if_interrupted(agent):
        frozen = agent.freeze(mountpoints)
        if not argv:
            return Outcome(frozen.count)
        with held() as mask, frozen:
            status = run(argv, mask)
        return Outcome(frozen.count, frozen.thawed, status)


@contextmanager
def thawed_if_interrupted(agent: GuestAgent, *, anyway: bool = False) -> Iterator[None]:
    """A signal raises Interrupted, and the guest is thawed; later ones are ignored.

    anyway: whether there may be no agent that could thaw it.
    """
    with breaking_off():
        try:
            yield
        except Interrupted:
            with suppress(*[AgentError] * anyway):
                agent.thaw()  # the signal may have come when the freeze had just succeeded
            raise


@contextmanager
def breaking_off() -> Iterator[None]:
    """The first signal raises Interrupted; later ones are ignored."""
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
    """Block signals, and discard those that came; yields the mask from before."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDING, signal.SIGCHLD})
    try:
        yield {int(number) for number in mask}
    finally:
        while signal.sigtimedwait(ENDING, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run(argv: Sequence[str], mask: set[int]) -> int:
    """Run a program with signals blocked; returns its exit status, as in a shell."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # stopped, it would keep the guest frozen
    try:
        # Other descriptors are for the program, too, such as that of a lock.
        process = subprocess.Popen(
            argv,
            close_fds=False,
            preexec_fn=lambda: release(mask),  # noqa: PLW1509 - see release
        )
    except OSError as error:
        raise CannotRun(f"cannot run {argv[0]}: {error.strerror}") from None
    while True:
        arrived = signal.sigwaitinfo({*ENDING, signal.SIGCHLD})
        if arrived.si_signo != signal.SIGCHLD:
            if arrived.si_code <= 0:  # sent by a process, not by the terminal
                process.send_signal(arrived.si_signo)
            continue
        code = process.poll()
        if code is not None:
            return code if code >= 0 else KILLED - code


def release(mask: set[int]) -> None:
    """In the new process: what is pending terminates it, and raises nothing in our handlers.

    This takes no lock, which another thread might have held at the fork.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
