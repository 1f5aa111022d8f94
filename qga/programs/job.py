"""Programs that have to end: in time, within limits, and with all that they have started.

A program is a job where a request or a rule bounds it (`Launch.bounded`); others cost nothing of
this. Its end is that of its whole tree of processes: what is left of the tree when the program
itself has ended is killed, once it has had GRACE to write what it still has to. A cgroup holds the
tree together; where there is none it is looked for (qga.programs.family).
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Protocol

from qga.errors import QgaError
from qga.programs import cgroup
from qga.programs.child import GRACE, LAST_WORDS, UNKNOWN_STATUS, exit_status
from qga.programs.family import Family
from qga.programs.limits import resource_limits

if TYPE_CHECKING:
    from qga.loop import Loop, Timer
    from qga.programs.spawn import Launch

    class Tree(Protocol):
        """Processes that are signalled together."""

        def signal(self, number: int) -> None: ...


KILLED_AGAIN_AFTER = 0.05
"""Seconds, and twice as many each time: without cgroup.kill some may have just been forked."""

GIVEN_UP_AFTER = 5.0
"""Seconds after which a program counts as over although the kernel does not end its processes."""

_BY_SIGNAL: dict[int, str] = {signal.SIGXCPU: "cpu-seconds", signal.SIGXFSZ: "file-size"}


class Job:
    """Made before the program is started, on a worker; then followed on the loop.

    entrance: a descriptor that the child has to write 0 to; None where there is no cgroup.
    resource_limits: arguments of setrlimit(2) for the child.
    ended_by: the limit that has ended it, or "timeout"; "" where it has ended by itself.

    Raises QgaError when a limit cannot be set here, and OSError.
    """

    def __init__(self, launch: Launch) -> None:
        self.ended_by = ""
        self._timeout, self._limits = launch.timeout, launch.limits
        self._timers: list[Timer] = []
        self._has_ended = self._is_over = False
        self._written = 0
        self._cgroup = cgroup.make(launch.limits, launch.timeout)
        if self._cgroup is None and launch.limits.cpu is not None:
            raise QgaError(
                "this guest cannot limit 'cpu'; that needs cgroup v2 with its cpu controller"
            )
        self.resource_limits = resource_limits(launch.limits, self._cgroup is not None)
        self.entrance = None if self._cgroup is None else self._cgroup.open_entrance()

    @property
    def confinement(self) -> str:
        """What holds it."""
        return "rlimits" if self._cgroup is None else "cgroup"

    def started(self) -> None:
        """The child has entered."""
        if self.entrance is not None:
            os.close(self.entrance)
            self.entrance = None

    def discard(self) -> None:
        """No program was started."""
        self.started()
        if self._cgroup is not None:
            self._cgroup.signal(signal.SIGKILL)
            self._cgroup.close()

    def watch(self, loop: Loop, pid: int) -> None:
        """Follow the program on the loop."""
        self._loop = loop
        self._pid = pid
        self._tree: Tree = self._cgroup or Family(pid)
        if self._timeout is not None:
            self._call_later(self._timeout, self._on_timeout)

    def admit(self, count: int) -> int:
        """The program has written so many bytes more: how many of them are kept."""
        most = self._limits.output
        if most is None:
            return count
        kept = max(0, min(count, most - self._written))
        self._written += count
        if self._written > most and not self._has_ended:
            self.ended_by = self.ended_by or "output"
            self._kill()
        return kept

    def on_exit(self) -> int:
        """The program itself has ended: its exit code, or minus the number of the signal.

        It is not reaped yet, for that would free its process id.
        """
        self._has_ended = True
        self._call_later(GRACE, self._kill)
        code = _exit_code(self._pid)
        if not self.ended_by and code < 0:
            self.ended_by = self._reason_of(-code)
        return code

    def finish(self, on_gone: Callable[[], None]) -> None:
        """Kill what is left of it; `on_gone` is called when nothing is."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._on_gone = on_gone
        self._kill()
        exit_status(self._pid)
        group = self._cgroup
        if group is None:
            self._tell()
        elif group.populated:
            self._loop.watch(group.fileno(), self._on_change, select.EPOLLPRI)
            self._call_later(GIVEN_UP_AFTER, self._tell)
            self._kill_again(KILLED_AGAIN_AFTER)
        else:
            self._close()

    def _reason_of(self, number: int) -> str:
        if self._cgroup is not None and self._cgroup.ran_out_of_memory():
            return "memory"
        reason = _BY_SIGNAL.get(number, "")
        limit = getattr(self._limits, reason.replace("-", "_"), None)
        return "" if limit is None else reason

    def _on_timeout(self) -> None:
        if self._has_ended:
            return
        self.ended_by = self.ended_by or "timeout"
        self._tree.signal(signal.SIGTERM)
        self._tree.signal(signal.SIGCONT)
        self._call_later(LAST_WORDS, self._kill)

    def _kill(self) -> None:
        self._tree.signal(signal.SIGKILL)

    def _kill_again(self, seconds: float) -> None:
        if not self._is_over:
            self._kill()
            self._call_later(seconds, lambda: self._kill_again(2 * seconds))

    def _on_change(self, _events: int) -> None:
        group = self._cgroup
        if group is not None and not group.populated:
            self._loop.unwatch(group.fileno())
            self._close()

    def _close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._cgroup is not None:
            self._cgroup.close()
        self._tell()

    def _tell(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_gone()

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(seconds, callback))


def take_over(loop: Loop, submit: Callable[..., object]) -> None:
    """Have the jobs end in time that an earlier agent has left behind."""

    def found(groups: Any, _error: BaseException | None) -> None:
        for group, seconds in groups or ():
            _LeftBehind(loop, group, seconds)

    with suppress(QgaError):  # no thread to be had: they are taken over at the next start
        submit(lambda: list(cgroup.left_behind()), found)


class _LeftBehind:
    """seconds: how long it may still run; None for ever."""

    def __init__(self, loop: Loop, group: cgroup.Cgroup, seconds: float | None) -> None:
        self._loop = loop
        self._group = group
        self._ended = False
        loop.watch(group.fileno(), self._on_change, select.EPOLLPRI)
        if seconds is not None:
            loop.call_later(max(0.0, seconds), lambda: self._signal(signal.SIGTERM, signal.SIGCONT))
            loop.call_later(max(0.0, seconds) + LAST_WORDS, lambda: self._signal(signal.SIGKILL))
        self._on_change(0)

    def _signal(self, *numbers: int) -> None:
        for number in numbers:
            if not self._ended:
                self._group.signal(number)

    def _on_change(self, _events: int) -> None:
        if not self._group.populated:
            self._ended = True
            self._loop.unwatch(self._group.fileno())
            self._group.close()


def _exit_code(pid: int) -> int:
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # somebody else in this process has waited for it
        info = None
    if info is None:
        return UNKNOWN_STATUS
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
