"""Jobs of QEMU: following them to their end, and ending them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, Optional

from qga.client.conversion import converted
from qga.client.errors import SnapshotFailed, shortened
from qga.client.hosts.qmp import Qmp, QmpRefused

# Seconds.
PATIENCE, INTERVAL = 60.0, 0.1

CONCLUDED = "concluded"

Belongs = Callable[[str], bool]
"""Whether a job of this name is meant."""


class Job(NamedTuple):
    """JobInfo of QMP."""

    id: str
    status: str
    done: Annotated[int, "current-progress"]
    total: Annotated[int, "total-progress"]
    error: Optional[str] = None


def jobs(qmp: Qmp, belongs: Belongs) -> list[Job]:
    return [job for job in converted(list[Job], qmp.execute("query-jobs")) if belongs(job.id)]


def end_jobs(qmp: Qmp, belongs: Belongs) -> bool:
    """Cancel what runs and dismiss what has ended; whether nothing is left."""
    found = jobs(qmp, belongs)
    for job in found:
        command = "job-dismiss" if job.status == CONCLUDED else "job-cancel"
        attempt(qmp, command, {"id": job.id})
    return not found


def transact(qmp: Qmp, actions: list[dict[str, Any]]) -> None:
    """All of these or none. The error names the jobs that keep a disk busy."""
    try:
        qmp.execute("transaction", {"actions": actions})
    except QmpRefused as refusal:
        running = [job.id for job in jobs(qmp, lambda _: True) if job.status != CONCLUDED]
        if "busy" in refusal.reason and running:
            refusal.reason += (
                f": job {shortened(', '.join(running))} of QEMU uses it; wait for its end, or end "
                "it with job-cancel of QMP"
            )
        raise


def attempt(qmp: Qmp, command: str, arguments: dict[str, Any]) -> None:
    with suppress(QmpRefused):
        qmp.execute(command, arguments)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SnapshotFailed("QEMU does not end a job")
        time.sleep(INTERVAL)


def raise_failure(job: Job) -> None:
    if job.error is not None:
        raise SnapshotFailed(f"QEMU failed to copy: {job.error}")
