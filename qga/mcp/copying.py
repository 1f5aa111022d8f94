"""Tools that copy between a guest and named directories of this host."""

from __future__ import annotations

import threading

from qga.client.copies.copying import Observer, Summary, copy_from, copy_to
from qga.client.copies.folder import HostFolder
from qga.client.data_ports import DataPorts
from qga.client.errors import CopyError
from qga.mcp.arguments import Argument, WrongArguments
from qga.mcp.call import Call
from qga.mcp.reply import Data
from qga.mcp.tools import FOLDER, GUEST, Service, tool
from qga.wording import counted

MOST_REASONS = 50
"""Paths in a result that were not copied."""

HOST_PATH = Argument(
    "host_path", "string", "an absolute path in a directory that --host-folder names", True
)
GUEST_PATH = Argument("path", "string", "an absolute path in the guest", True)
RECURSIVE = Argument("recursive", "boolean", "copy a directory with all that is in it")

_one_by_one = threading.Lock()  # reading the umask changes that of the process for a moment


@tool(GUEST, GUEST_PATH, HOST_PATH, RECURSIVE, needs=(FOLDER,), reads_only=False)
def copy_from_guest(
    service: Service,
    call: Call,
    guest: str,
    path: str,
    host_path: str,
    recursive: bool = False,
) -> Data:
    """Copy a file or directory of a guest to this host, as cp does. If host_path is a directory,
    the copy is made in it."""
    return _copy(service, call, guest, host_path, path, recursive, into_guest=False)


@tool(GUEST, HOST_PATH, GUEST_PATH, RECURSIVE, needs=(FOLDER, "write"), reads_only=False)
def copy_to_guest(
    service: Service,
    call: Call,
    guest: str,
    host_path: str,
    path: str,
    recursive: bool = False,
) -> Data:
    """Copy a file or directory of this host into a guest, as cp does. If path is a directory of
    the guest, the copy is made in it."""
    return _copy(service, call, guest, host_path, path, recursive, into_guest=True)


def _copy(
    service: Service,
    call: Call,
    guest: str,
    host_path: str,
    path: str,
    recursive: bool,
    into_guest: bool,
) -> Data:
    folder, name = place_of(service, host_path)
    copy, source, target = (copy_to, name, path) if into_guest else (copy_from, path, name)
    call.extend(service.longest)
    with call.turn(_one_by_one), service.guests.agent(guest, call) as agent:
        summary = copy(
            agent,
            [source],
            target,
            recursive=recursive,
            observer=Watch(call, service.largest),
            ports=DataPorts(agent.place),
            folder=folder,
        )
    return shown(guest, summary)


def place_of(service: Service, path: str) -> tuple[HostFolder, str]:
    for folder in service.folders:
        name = folder.relative(path)
        if name is not None:
            return folder, name
    folders = ", ".join(folder.path for folder in service.folders)
    raise WrongArguments(f"'host_path' must be an absolute path in {folders}, without '..'")


def shown(guest: str, summary: Summary) -> Data:
    counts = {"files": summary.files, "directories": summary.folders, "bytes": summary.bytes}
    skipped = [f"{path}: {reason}" for path, reason in summary.skipped[:MOST_REASONS]]
    left_out = {"not-copied": skipped, "count-not-copied": len(summary.skipped)} if skipped else {}
    return Data(f"the guest '{guest}'", {**counts, **left_out})


class Watch(Observer):
    """Ends a copy that is cancelled, takes too long or is too large."""

    def __init__(self, call: Call, largest: int) -> None:
        self._call = call
        self._largest = largest
        self._moved = 0

    def planned(self, files: int, size: int) -> None:
        self._check(size)

    def moved(self, count: int) -> None:
        self._moved += count
        self._check(self._moved)
        self._call.check()

    def _check(self, size: int) -> None:
        if size > self._largest:
            raise CopyError(f"more than {counted(self._largest, 'byte')}: start with --max-copy")
