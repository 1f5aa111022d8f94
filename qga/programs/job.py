"""Programs with a timeout or limits, which end together with everything that they started.

A program is a job if a request or a rule limits it (`Launch.bounded`); other programs do not pay
for this. When the program itself has exited, the rest of its process tree gets GRACE seconds to
write its last output and is then killed. The tree is a cgroup, or without cgroups whatever
qga.programs.descendants finds.
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
from qga.programs.descendants import Descendants
from qga.programs.limits import raised_by_kernel, resource_limits

if TYPE_CHECKING:
    from qga.loop import Loop, Timer
    from qga.programs.spawn import Launch

    class Tree(Protocol):
        """Processes that are signalled together."""

        def signal(self, number: int) -> None: ...


KILLED_AGAIN_AFTER = 0.05
"""Seconds, doubled each time: without cgroup.kill a process may just have forked."""

GIVEN_UP_AFTER = 5.0
"""Seconds after which a program counts as ended even if its processes survive SIGKILL."""

_BY_SIGNAL: dict[int, str] = {signal.SIGXCPU: "cpu-seconds", signal.SIGXFSZ: "file-size"}


class Job:
    """Created on a worker thread before the program is started, then followed on the loop.

    entrance: a descriptor that the child has to write 0 to; None without a cgroup.
    resource_limits: arguments of setrlimit(2) for the child.
    ended_by: the limit that ended the program, or "timeout"; "" if it exited by itself.

    Raises QgaError if this guest cannot set a limit, and OSError.
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
        """How its processes are confined."""
        return "rlimits" if self._cgroup is None else "cgroup"

    def started(self) -> None:
        """Close the entrance; the child is in the cgroup."""
        if self.entrance is not None:
            os.close(self.entrance)
            self.entrance = None

    def discard(self) -> None:
        """Remove the cgroup after the program could not be started."""
        self.started()
        if self._cgroup is not None:
            self._cgroup.signal(signal.SIGKILL)
            self._cgroup.close()

    def watch(self, loop: Loop, pid: int) -> None:
        """Follow the program on the loop."""
        self._loop = loop
        self._pid = pid
        self._tree: Tree = self._cgroup or Descendants(pid)
        if self._timeout is not None:
            self._call_later(self._timeout, self._on_timeout)

    def admit(self, count: int) -> int:
        """Count further output; returns how many of these bytes to keep."""
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
        """The program itself has exited; returns its exit code, or minus the signal number.

        It is not reaped yet, because its process ID could then be reused.
        """
        self._has_ended = True
        self._call_later(GRACE, self._kill)
        code = _exit_code(self._pid)
        if not self.ended_by and code < 0:
            self.ended_by = self._reason_of(-code)
        return code

    def finish(self, on_gone: Callable[[], None]) -> None:
        """Kill the rest of the process tree; `on_gone` is called when none of it is left."""
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
        if number == signal.SIGKILL and self._ignored_sigxcpu():
            reason = "cpu-seconds"
        limit = getattr(self._limits, reason.replace("-", "_"), None)
        return "" if limit is None else reason

    def _ignored_sigxcpu(self) -> bool:
        """Whether it had SIGXCPU; a second later the kernel sends SIGKILL."""
        limit = self._limits.cpu_seconds
        return limit is not None and raised_by_kernel(self._pid, limit)

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
    """Enforce the deadlines of the jobs that an earlier agent left behind."""

    def found(groups: Any, _error: BaseException | None) -> None:
        for group, seconds in groups or ():
            _LeftBehind(loop, group, seconds)

    with suppress(QgaError):  # no thread is free; the next start of the agent tries again
        submit(lambda: list(cgroup.left_behind()), found)


class _LeftBehind:
    """A job of an earlier agent. seconds: how long it may still run; None for no limit."""

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
    except ChildProcessError:  # other code in this process has reaped it
        info = None
    if info is None:
        return UNKNOWN_STATUS
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
