"""Cleans up what a killed qgactl has left in a QEMU: jobs, nodes, and files that they hold open.

A file that QEMU has open takes space even after its removal. A note that is kept with it in QEMU
identifies the process that opened it, and everything else of the same copy. What must stay true:
nothing of a process that may still run is touched.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from qga.client.conversion import converted, member
from qga.client.hosts.qmp import Qmp, QmpRefused
from qga.client.snapshots.jobs import attempt, end_jobs, wait_until

# A process ID has at most 7 digits (PID_MAX_LIMIT of Linux).
NOTE = re.compile(
    r"(qga-[0-9a-f]{8}) of process ([0-9]{1,7}) since ([0-9]{1,20}) in namespace ([0-9]{1,20})"
)

# In /proc/PID/stat, after the name of the program: proc(5) calls it field 22.
START = 19


class Owner(NamedTuple):
    """A process. Its number may be that of another one later, or in another container.

    start: clock ticks since boot. namespace: the inode of its PID namespace; 0 if unknown.
    """

    pid: int
    start: int
    namespace: int


def new_prefix() -> str:
    """The beginning of the names of one copy. QEMU permits 31 characters for that of a node."""
    return f"qga-{secrets.token_hex(4)}"


def note(prefix: str) -> str:
    """What QEMU keeps with a file of this copy."""
    pid, start, namespace = this_process()
    return f"{prefix} of process {pid} since {start} in namespace {namespace}"


def this_process() -> Owner:
    pid = os.getpid()
    return Owner(pid, start_of(pid), pid_namespace())


def pid_namespace() -> int:
    """0 if /proc does not show it, or shows the processes of another one."""
    with suppress(OSError):
        if os.readlink("/proc/self") == str(os.getpid()):
            return os.stat("/proc/self/ns/pid").st_ino
    return 0


def start_of(pid: int) -> int:
    """0 if it is not shown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[START])
    except OSError:
        return 0


def is_leftover(owner: Owner) -> bool:
    namespace = pid_namespace()
    if not namespace or namespace != owner.namespace:
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return start_of(owner.pid) not in (0, owner.start)


def end_leftovers(qmp: Qmp) -> None:
    """Raises the errors of Qmp, and SnapshotFailed if QEMU does not end a job."""
    files = dict(leftover_files(qmp))
    if not files:
        return
    prefixes = set(files.values())

    def belongs(name: str) -> bool:
        return name.rpartition("-")[0].rpartition("-")[0] in prefixes

    wait_until(lambda: end_jobs(qmp, belongs))
    nodes = filter(belongs, node_names(qmp))
    for name in sorted(nodes, key=lambda name: "-file-" in name):  # others are built on it
        attempt(qmp, "blockdev-del", {"node-name": name})
    for number in files:
        attempt(qmp, "remove-fd", {"fdset-id": number})


def leftover_files(qmp: Qmp) -> Iterator[tuple[int, str]]:
    """The numbers of the sets that have such a file, and the prefixes of their copies."""
    for files in objects(qmp.execute("query-fdsets")):
        for file in objects(files.get("fds")):
            found = NOTE.fullmatch(str(file.get("opaque")))
            if found and is_leftover(Owner(*map(int, found.groups()[1:]))):
                yield member(int, "fdset-id", files), found[1]


def node_names(qmp: Qmp) -> list[str]:
    try:
        nodes = qmp.execute("query-named-block-nodes", {"flat": True})
    except QmpRefused:  # before QEMU 5.0
        nodes = qmp.execute("query-named-block-nodes")
    return [member(str, "node-name", node) for node in objects(nodes)]


def objects(reply: object) -> list[dict[str, Any]]:
    """A reply that has to be a list of objects."""
    found: list[dict[str, Any]] = converted(list[dict], reply)  # type: ignore[type-arg]
    return found
