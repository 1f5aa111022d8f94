"""The user, the directory and the limits of a program in the guest."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional


class Limits(NamedTuple):
    """What a program and its descendants may use; None is no limit.

    memory: bytes. cpu: processors; 0.5 is half of one. processes: processes and threads.
    cpu_seconds: seconds of processor time of each process. open_files: descriptors of each process.
    file_size: bytes of the largest file that a process may write. output: bytes of both output
    streams together.
    """

    memory: Optional[int] = None
    cpu: Optional[float] = None
    processes: Optional[int] = None
    cpu_seconds: Optional[int] = None
    open_files: Optional[int] = None
    file_size: Optional[int] = None
    output: Optional[int] = None


NO_LIMITS = Limits()


class ProgramOptions(NamedTuple):
    """How a program runs; the defaults leave it to the agent.

    user, group: by name or number. `cwd`: a directory of the guest. `timeout`: in seconds.
    """

    user: Optional[str] = None
    group: Optional[str] = None
    cwd: Optional[str] = None
    timeout: float = math.inf
    limits: Optional[Limits] = None

    def on_the_wire(self) -> dict[str, Any]:
        """The corresponding arguments of qga-exec."""
        limits = {
            name.replace("_", "-"): value
            for name, value in (self.limits or NO_LIMITS)._asdict().items()
            if value is not None
        }
        wanted = {
            "user": self.user,
            "group": self.group,
            "directory": self.cwd,
            "timeout": None if self.timeout == math.inf else self.timeout,
            "limits": limits or None,
        }
        return {name: value for name, value in wanted.items() if value is not None}


DEFAULT_OPTIONS = ProgramOptions()


def checked(
    user: str | None = None,
    group: str | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    limits: Limits | None = None,
) -> ProgramOptions:
    """ProgramOptions; without a timeout it is math.inf. Raises TypeError and ValueError.

    An empty name is an error, because it would mean the agent's user, which is root.
    """
    for name, text in (("user", user), ("group", group), ("cwd", cwd)):
        if text == "":
            raise ValueError(f"{name} is empty; use None for that of the agent")
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"limits must be Limits(...), not {limits!r}")
    seconds = math.inf if timeout is None else timeout
    for name, number in (limits or NO_LIMITS)._asdict().items():
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"limits.{name} is {number}; use a number, or None for no limit")
    if not isinstance(seconds, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if math.isnan(seconds):
        raise ValueError("timeout is nan; use a number of seconds, or None for no limit")
    return ProgramOptions(user, group, cwd, seconds, limits)
