"""Copying files and directories to a guest and from it.

    copy_to(agent, ["site", "nginx.conf"], "/etc/web", recursive=True)
    copy_from(agent, ["/var/log/syslog"], "logs")

Which side is the guest makes no difference to the copy (qga.client.copies.copier): both are
`Side`s, and `guest_side` finds the best way that the agent has.
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

    `destination` is an absolute path; a directory that is there takes the copies into it.
    `recursive`: directories, too. A symbolic link among `paths` is followed, one below a
    directory is copied as such. New files and directories have the permissions of their
    originals less the umask; `preserve`: all of them, a file that was there, too. A file that
    grows by more than `growth` bytes meanwhile is not copied. `ports` are the data ports that
    may be used, by default those beside the agent's socket. `label` is written before paths in the
    guest in messages. `folder`: local paths are relative to it, and nothing leaves it, by symbolic
    links either.
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
    """Copy files of the guest to this machine; everything is as for `copy_to`."""
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
    guest = guest_side(agent, lambda: watcher.moved(0), ports or DataPorts(agent.address))
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
    """The guest's files, with its shell if it has one for us."""
    guest = ShellFiles(agent, tick, ports)
    try:
        if guest.works():
            return guest
    except GuestFrozen:
        raise
    except CommandError:
        pass  # no guest-exec, not for this, or no /bin/sh
    return PlainFiles(agent, tick, ports)
