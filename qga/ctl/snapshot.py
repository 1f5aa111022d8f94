"""Snapshots of a machine's disks."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Optional

import typer

from qga.client.conversion import plain
from qga.client.errors import NotQuiesced
from qga.client.snapshots.folder import RECORD
from qga.client.snapshots.record import Freeze, Snapshot
from qga.client.snapshots.taking import FORMATS
from qga.ctl import display
from qga.ctl.app import command, faults
from qga.ctl.command import SNAPSHOTS
from qga.ctl.frozen import Interrupted, thawed_if_interrupted
from qga.ctl.guest_words import Line, Surroundings, first_word
from qga.ctl.progress import Progress
from qga.ctl.settings import Settings
from qga.ctl.tables import show_facts
from qga.ctl.units import size
from qga.ctl.values import Expected
from qga.wording import counted


def is_destination(words: list[str], _line: Line, _surroundings: Surroundings) -> bool:
    return len(words) < 2


def valid_format(text: str) -> str:
    if text not in FORMATS:
        raise Expected(f"use {' or '.join(FORMATS)}")
    return text


@command(SNAPSHOTS, first_word("GUEST DIRECTORY", is_destination))
def snapshot(
    context: typer.Context,
    directory: str = typer.Argument(
        ..., metavar="DIRECTORY", help="A new directory on this host.", show_default=False
    ),
    disk: Optional[list[str]] = typer.Option(
        None,
        metavar="NAME",
        help="Only this disk, such as vda. May be repeated. By default all that are writable.",
    ),
    external: bool = typer.Option(
        False,
        "--external",
        help="Copy nothing: the guest writes to new files in DIRECTORY from now on, and the old "
        "ones stay as they are.",
    ),
    form: str = typer.Option(
        "qcow2",
        "--format",
        metavar="qcow2|raw",
        callback=valid_format,
        help="Format of copies.",
    ),
    unfrozen: Optional[list[str]] = typer.Option(
        None,
        metavar="PATH",
        help="The filesystem mounted here need not be frozen, such as /boot/efi. May be repeated.",
    ),
    crash_consistent: bool = typer.Option(
        False,
        "--crash-consistent",
        help="Take the snapshot even if the guest cannot be frozen.",
    ),
    qmp: str = typer.Option(
        "",
        metavar="SOCKET",
        help="QEMU's QMP socket, if it is not found. Not for guests of libvirt.",
    ),
) -> None:
    """Copy the disks of a guest while it is frozen.

    The guest is frozen until QEMU has started to copy, usually for a fraction of a second. Then
    it runs on, and QEMU copies what the disks contained at that moment. DIRECTORY gets a file for
    each disk, and snapshot.json, which records for how long the guest was frozen, which
    filesystems were, and which freeze hooks ran.

    Nothing is copied if the guest cannot be frozen as a whole: no agent answers, a freeze hook
    fails, a filesystem that is mounted for writing does not support it, or the freeze ends too
    early. With --crash-consistent the disks are copied nevertheless, as a power failure would
    leave them, and the record says why.

    Read-only and temporary disks are left out. After an error, ^C or SIGTERM the guest is thawed,
    and nothing is left of the copies. Files of --external stay once the guest writes to them.

    \b
    Examples:
      qgactl snapshot web /backup/web-monday
      qgactl snapshot web /backup/web-data --disk vdb --format raw
      qgactl snapshot web /srv/vm/web-2 --external
    """
    settings: Settings = context.obj
    if external and form != "qcow2":
        raise typer.BadParameter("--external needs the format qcow2")
    shown = not (settings.structured or display.is_quiet())
    agent = settings.agent()
    try:
        with (
            faults(),
            advised(),
            closing(agent) if crash_consistent else agent,
            thawed_if_interrupted(agent, anyway=crash_consistent),
            files_named(directory, external),
            Progress(lambda: None, shown=shown) as progress,
        ):
            taken = agent.snapshot(
                directory,
                disks=disk or (),
                external=external,
                format=form,
                qmp=qmp,
                unfrozen=unfrozen or (),
                crash_consistent=crash_consistent,
                observer=progress,
            )
    except Interrupted as interruption:
        raise typer.Exit(interruption.status) from None
    if settings.structured:
        settings.print(plain(taken))
    else:
        show(settings.guest, directory, taken)


@contextmanager
def files_named(directory: str, external: bool) -> Iterator[None]:
    """After a signal: before the thaw, which may fail."""
    existed = os.path.lexists(directory)
    try:
        yield
    except Interrupted:
        if external and not existed and os.path.isdir(directory):
            display.say(f"interrupted; but the guest may write to the new files in {directory}")
        raise


@contextmanager
def advised() -> Iterator[None]:
    try:
        yield
    except NotQuiesced as error:
        if not error.started:
            error.reason += "; --crash-consistent takes the snapshot nevertheless"
        raise


def show(guest: str, directory: str, taken: Snapshot) -> None:
    show_facts(facts(taken))
    what = "new files for" if taken.external else "copied"
    display.confirm(
        f"{guest}: {what} {counted(len(taken.disks), 'disk')} in {taken.seconds:.1f} s; "
        f"{directory}/{RECORD} has the details"
    )


def facts(taken: Snapshot) -> Iterator[tuple[str, Optional[str]]]:
    yield "Consistent", (taken.problem and f"no: {taken.problem}") or "yes"
    if taken.freeze:
        yield from facts_of_freeze(taken.freeze)
    for disk in taken.disks:
        base = f", over {disk.base}" if disk.base else ""
        yield f"Disk {disk.name}", f"{disk.file} ({size(disk.size)}){base}"
    for name, reason in taken.skipped:
        yield f"Disk {name}", f"left out: {reason}"


def facts_of_freeze(freeze: Freeze) -> Iterator[tuple[str, Optional[str]]]:
    yield "Frozen for", f"{freeze.seconds:.2f} s, after {freeze.before:.2f} s of preparation"
    if freeze.filesystems is None:
        yield "Filesystems", f"{freeze.frozen} (this agent does not report which)"
        return
    yield "Filesystems", ", ".join(each.mountpoint for each in freeze.filesystems)
    for each in freeze.left_out or ():
        yield "Not frozen", f"{each.mountpoint}: {each.reason}"
    yield "Hooks", ", ".join(freeze.hooks or ()) or "none"
