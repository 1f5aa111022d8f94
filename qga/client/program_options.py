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
