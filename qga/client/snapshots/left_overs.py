"""Ends what a qgactl that was killed has left in a QEMU: jobs, nodes, and the files they hold open.

A file that QEMU has open takes space after its removal, too. The names tell the process that chose
them. What must stay true: nothing of a process that still runs is touched.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from typing import Any

from qga.client.hosts.qmp import Qmp, QmpRefused
from qga.client.shapes import member, shaped
from qga.client.snapshots.jobs import attempt, end_jobs, jobs, wait_until

# A process id has at most 7 digits (PID_MAX_LIMIT of Linux).
NAME = re.compile(r"(qga-([0-9]{1,7})-[0-9a-f]{8})-[a-z]+-[0-9]+")


def new_prefix() -> str:
    """The beginning of names that belong to this process."""
    return f"qga-{os.getpid()}-{secrets.token_hex(4)}"


def end_left_overs(qmp: Qmp) -> None:
    """Raises the errors of Qmp, and SnapshotFailed if QEMU does not end a job."""
    nodes = [name for name in node_names(qmp) if is_left_over(name)]
    if not nodes and not jobs(qmp, is_left_over):
        return
    wait_until(lambda: end_jobs(qmp, is_left_over))
    for name in sorted(nodes, key=lambda name: "-file-" in name):  # others are built on it
        attempt(qmp, "blockdev-del", {"node-name": name})
    for number in left_over_files(qmp):
        attempt(qmp, "remove-fd", {"fdset-id": number})


def is_left_over(name: str) -> bool:
    found = NAME.fullmatch(name)
    return found is not None and not is_running(int(found[2]))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def node_names(qmp: Qmp) -> list[str]:
    try:
        nodes = qmp.execute("query-named-block-nodes", {"flat": True})
    except QmpRefused:  # before QEMU 5.0
        nodes = qmp.execute("query-named-block-nodes")
    return [member(str, "node-name", node) for node in objects(nodes)]


def left_over_files(qmp: Qmp) -> Iterator[int]:
    """The numbers of the sets that have such a file."""
    for files in objects(qmp.execute("query-fdsets")):
        for file in objects(files.get("fds")):
            if is_left_over(str(file.get("opaque"))):
                yield member(int, "fdset-id", files)


def objects(reply: object) -> list[dict[str, Any]]:
    """A reply that has to be a list of objects."""
    found: list[dict[str, Any]] = shaped(list[dict], reply)  # type: ignore[type-arg]
    return found
