"""Programs that have to end: in time, and with all that they have started.

A program is a job where a request or a rule bounds it (`Launch.bounded`); others cost nothing of
this. Its end is that of its whole tree of processes: what is left of the tree when the program
itself has ended is killed, once it has had GRACE to write what it still has to.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Callable

from qga.programs.child import GRACE, LAST_WORDS, UNKNOWN_STATUS, exit_status
from qga.programs.family import Family

if TYPE_CHECKING:
    from qga.loop import Loop, Timer
    from qga.programs.spawn import Launch


class Job:
    """ended_by: what the agent has ended it for, such as "timeout"; "" where it has not."""

    def __init__(self, launch: Launch) -> None:
        self.ended_by = ""
        self._timeout = launch.timeout
        self._timers: list[Timer] = []
        self._has_ended = False

    def watch(self, loop: Loop, pid: int) -> None:
        """Follow the program on the loop."""
        self._loop = loop
        self._pid = pid
        self._tree = Family(pid)
        if self._timeout is not None:
            self._call_later(self._timeout, lambda: self.end("timeout"))

    def end(self, reason: str) -> None:
        """Ask all of it to end, and kill it if it does not."""
        if self._has_ended:
            return
        self.ended_by = self.ended_by or reason
        self._tree.signal(signal.SIGTERM)
        self._tree.signal(signal.SIGCONT)
        self._call_later(LAST_WORDS, self._kill)

    def on_exit(self) -> int:
        """The program itself has ended: its exit code, or minus the number of the signal.

        It is not reaped yet, for that would free its process id.
        """
        self._has_ended = True
        self._call_later(GRACE, self._kill)
        return _exit_code(self._pid)

    def finish(self, on_gone: Callable[[], None]) -> None:
        """Kill what is left of it; `on_gone` is called when nothing is."""
        for timer in self._timers:
            timer.cancel()
        self._kill()
        exit_status(self._pid)
        on_gone()

    def _kill(self) -> None:
        self._tree.signal(signal.SIGKILL)

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(seconds, callback))


def _exit_code(pid: int) -> int:
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # somebody else in this process has waited for it
        info = None
    if info is None:
        return UNKNOWN_STATUS
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
