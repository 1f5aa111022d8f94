"""Whether an earlier agent has left jobs behind: the agent asks that at its start."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qga.loop import Loop

JOB_PLACES = (
    "/sys/fs/cgroup/system.slice/qga-programs.service",
    "/sys/fs/cgroup/qga-programs.service",
)
"""Where cgroups of jobs may be: with systemd, and without it."""


def take_over_jobs(loop: Loop, submit: Callable[..., object]) -> None:
    """Have the jobs end in time that an earlier agent has left behind.

    submit: that of qga.worker.Worker.
    """
    if any(map(os.path.isdir, JOB_PLACES)):
        from qga.programs.job import take_over

        take_over(loop, submit)
