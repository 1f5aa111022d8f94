"""A cheap check at start whether an earlier agent left jobs behind."""

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
"""Where the cgroups of jobs may be: with systemd, and without."""


def take_over_jobs(loop: Loop, submit: Callable[..., object]) -> None:
    """Enforce the deadlines of the jobs that an earlier agent left behind.

    submit: the method of qga.worker.Worker.
    """
    if any(map(os.path.isdir, JOB_PLACES)):
        from qga.programs.job import take_over

        take_over(loop, submit)
