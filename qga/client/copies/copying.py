"""Copying files and directories to a guest and from it.

    copy_to(agent, ["site", "nginx.conf"], "/etc/web", recursive=True)
    copy_from(agent, ["/var/log/syslog"], "logs")

The copy itself (qga.client.copies.copier) does not know which `Side` is the guest. `guest_side`
chooses the best way that the agent offers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing

from qga.client.agent import GuestAgent
from qga.client.copies.copier import Copier, Options
from qga.client.copies.folder import HostFolder
from qga.client.copies.local_files import LocalFiles
from qga.client.copies.plain_files import PlainFiles
from qga.client.copies.report import Observer, Summary
from qga.client.copies.shell_files import ShellFiles
from qga.client.copies.trees import Side
from qga.client.data_ports import DataPorts
from qga.client.errors import CommandError, GuestFrozen
from qga.client.waits import stop_if_interrupted

__all__ = ["GROWTH", "Observer", "Summary", "copy_from", "copy_to", "guest_side"]

# Bytes by which a file may grow while it is copied.
GROWTH = 16 * 1024 * 1024


def copy_to(
    agent: GuestAgent,
    paths: Sequence[str],
    destination: str,
    *,
    recursive: bool = False,
    resume: bool = False,
    preserve: bool = False,
    growth: int = GROWTH,
    observer: Observer | None = None,
    ports: DataPorts | None = None,
    label: str = "",
    folder: HostFolder | None = None,
) -> Summary:
    """Copy files of this machine into the guest, as cp(1) does.

    paths: a symbolic link among them is followed; one below a directory is copied as a link.
    destination: an absolute path. If it is an existing directory, the copies go into it.
    recursive: whether to copy directories.
    resume: whether to continue the partial files of an earlier copy.
    preserve: set exactly the permissions of the originals, also on existing files. Otherwise new
        files and directories get them minus the umask.
    growth: a file that grows by more bytes during the copy is skipped.
    observer: follows the progress.
    ports: the data ports that may be used; by default those next to the agent's socket.
    label: a prefix of the guest's paths in messages.
    folder: local paths are relative to this directory and cannot leave it, even by symbolic links.
    Raises AgentError if the copy fails as a whole. Files that fail are in `Summary.skipped`.
    """
    options = Options(recursive, resume, preserve, growth)
    return _copy(agent, True, paths, destination, options, observer, ports, label, folder)


def copy_from(
    agent: GuestAgent,
    paths: Sequence[str],
    destination: str,
    *,
    recursive: bool = False,
    resume: bool = False,
    preserve: bool = False,
    growth: int = GROWTH,
    observer: Observer | None = None,
    ports: DataPorts | None = None,
    label: str = "",
    folder: HostFolder | None = None,
) -> Summary:
    """Copy files of the guest to this machine; the arguments are those of `copy_to`."""
    options = Options(recursive, resume, preserve, growth)
    return _copy(agent, False, paths, destination, options, observer, ports, label, folder)


def _copy(
    agent: GuestAgent,
    into_guest: bool,
    paths: Sequence[str],
    destination: str,
    options: Options,
    observer: Observer | None,
    ports: DataPorts | None,
    label: str,
    folder: HostFolder | None,
) -> Summary:
    watcher = observer or Observer()

    def tick() -> None:
        stop_if_interrupted()
        watcher.moved(0)

    guest = guest_side(agent, tick, ports or DataPorts(agent.address))
    guest.label = label
    local = folder.files(guest.tick) if folder else LocalFiles(guest.tick)
    source: Side = local if into_guest else guest
    target: Side = guest if into_guest else local
    with closing(guest), closing(local):
        copier = Copier(source, target, options, watcher)
        start = time.monotonic()
        copier.copy(paths, destination)
        return copier.summary(time.monotonic() - start, guest.port_used)


def guest_side(
    agent: GuestAgent, tick: Callable[[], None], ports: DataPorts
) -> ShellFiles | PlainFiles:
    """The guest's files, with the help of its shell if the agent can run one."""
    guest = ShellFiles(agent, tick, ports)
    try:
        if guest.works():
            return guest
    except GuestFrozen:
        raise
    except CommandError:
        pass  # guest-exec is missing or refuses this, or there is no /bin/sh
    return PlainFiles(agent, tick, ports)
