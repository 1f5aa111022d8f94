"""Copying files between the guest and the host."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Callable

import typer

from qga.client.commands.files import LIMIT
from qga.client.conversion import encode_base64
from qga.client.copies.copying import GROWTH, Summary, copy_from, copy_to
from qga.client.copies.guest_files import GuestFiles
from qga.client.copies.trees import Place
from qga.client.errors import AgentError, CopyError
from qga.ctl import display
from qga.ctl.app import FAILED, command, discard_output, explain, faults
from qga.ctl.command import RUN
from qga.ctl.guest_words import in_paths, paths_of_cat, paths_of_cp
from qga.ctl.interrupts import Interrupts
from qga.ctl.progress import Progress
from qga.ctl.settings import Settings
from qga.ctl.values import parse_size
from qga.ctl.values import size as valid_size
from qga.wording import counted

KEPT = "partial copy kept; run the same command again to resume"

MIB = 1024 * 1024


@command(
    RUN, in_paths("SOURCE GUEST:DESTINATION, or GUEST:SOURCE DESTINATION", paths_of_cp, "tmp/")
)
def cp(
    context: typer.Context,
    paths: list[str] = typer.Argument(
        ...,
        metavar="SOURCE... DESTINATION",
        help="GUEST:PATH is in that guest, :PATH in the default one. PATH is absolute.",
    ),
    recursive: bool = typer.Option(
        False, "-r", "-R", "--recursive", help="Copy directories recursively."
    ),
    preserve: bool = typer.Option(
        False, "-p", "--preserve", help="Set permissions exactly, ignoring the umask."
    ),
    archive: bool = typer.Option(False, "-a", "--archive", help="Same as -r -p."),
    resume: bool = typer.Option(
        False, "--resume", help="Keep partial copies, and continue those of an earlier --resume."
    ),
    growth: str = typer.Option(
        f"{GROWTH // MIB}M",
        "--max-growth",
        metavar="SIZE",
        callback=valid_size,
        help="Skip a file that grows by more than this while it is copied.",
    ),
) -> None:
    """Copy files to or from a guest.

    As with cp(1), copies go into the destination if it is a directory; otherwise it is the name
    of the copy. New files and directories get the permissions of the originals, less the umask
    unless -p is given. A file that is replaced keeps its owner and permissions. Symbolic links
    inside a directory are copied as links. Owners and times are not copied.

    A file appears under its name once it is complete and its checksum is verified. ^C leaves
    nothing behind, or with --resume a partial copy named .NAME.qga-part.

    A FIFO or symbolic link that is named as the destination is written through. A device is
    written only if it is the destination itself. Nothing found inside a directory is written
    through.

    The data passes through a data port if one is free, otherwise through the agent. The guest
    needs sh, find, stat and sha256sum, and an agent that may run them with guest-exec. Without
    guest-exec qgactl copies single files, and prints what is lost.

    \b
    Examples:
      qgactl cp nginx.conf web:/etc/nginx/
      qgactl cp web:/var/log/syslog web:/var/log/auth.log logs/
      qgactl cp -a site web:/srv/www
      qgactl cp --resume disk.img web:/var/tmp/disk.img
    """
    settings: Settings = context.obj
    *sources, destination = paths
    if not sources:
        raise typer.BadParameter("missing DESTINATION: qgactl cp SOURCE... DESTINATION")
    copy = direction(sources, destination)
    limit, ports = parse_size(growth), settings.ports()
    with (
        interruptible(KEPT if resume else "") as interrupts,
        faults(),
        settings.agent() as agent,
        Progress(
            interrupts.check, shown=not (settings.structured or display.is_quiet())
        ) as progress,
    ):
        summary = copy(
            agent,
            [path_of(path) for path in sources],
            path_of(destination),
            recursive=recursive or archive,
            resume=resume,
            preserve=preserve or archive,
            growth=limit,
            observer=progress,
            ports=ports,
            label=f"{settings.named}:",
        )
    if settings.structured:
        settings.print(summary_json(summary))
    if summary.skipped:
        raise typer.Exit(FAILED)


@command(RUN, in_paths("GUEST:PATH...", paths_of_cat, "etc/hosts"))
def cat(
    context: typer.Context,
    paths: list[str] = typer.Argument(
        ..., metavar="PATH...", help="Absolute paths in the guest: GUEST:PATH, or PATH."
    ),
    largest: str = typer.Option(
        f"{LIMIT // MIB}M",
        "--max-size",
        metavar="SIZE",
        callback=valid_size,
        help="With --json: fail if a file is larger, or has no end.",
    ),
) -> None:
    """Print files of the guest.

    \b
    Examples:
      qgactl cat web:/etc/os-release
      qgactl cat web:/proc/loadavg web:/proc/uptime
      qgactl cat web:/var/log/syslog | grep -i error
    """
    settings: Settings = context.obj
    limit = parse_size(largest)
    with interruptible() as interrupts, faults(), settings.agent() as agent:
        files = GuestFiles(agent, interrupts.check)
        if settings.structured:
            settings.print([file_json(files, path, limit) for path in paths])
            return
        for path in paths:
            with closing(files.chunks(Place(path), 0, 0)) as chunks:
                for chunk in chunks:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()


@contextmanager
def interruptible(last_words: str = "") -> Iterator[Interrupts]:
    """A context in which signals and closed pipes stop the command without leaving files behind."""
    with Interrupts() as interrupts:
        try:
            yield interrupts
        except BrokenPipeError:
            discard_output()
            raise typer.Exit(interrupts.status) from None
        except KeyboardInterrupt:
            if last_words:
                display.say(last_words)
            raise typer.Exit(interrupts.status) from None
        except AgentError:  # some of which are OSErrors
            raise
        except OSError as error:
            explain(error)
            raise typer.Exit(FAILED) from None


def direction(sources: list[str], destination: str) -> Callable[..., Summary]:
    if is_in_guest(destination) and not any(map(is_in_guest, sources)):
        return copy_to
    if not is_in_guest(destination) and all(map(is_in_guest, sources)):
        return copy_from
    if is_in_guest(destination) and all(map(is_in_guest, sources)):
        raise typer.BadParameter("both are in the guest; copy there with qgactl exec GUEST -- cp")
    raise typer.BadParameter(
        "either the destination or all sources must be in the guest (GUEST:PATH); write ./ before "
        "the name of a file of this host that has a colon in it"
    )


def is_in_guest(path: str) -> bool:
    return path.startswith(":")


def path_of(path: str) -> str:
    return path[1:] if is_in_guest(path) else path


def summary_json(summary: Summary) -> dict[str, Any]:
    skipped = [
        {"path": as_utf8(path), "reason": as_utf8(reason)} for path, reason in summary.skipped
    ]
    members = {**summary._asdict(), "seconds": round(summary.seconds, 3), "skipped": skipped}
    if not members.pop("notes"):
        return members
    return {**members, "notes": [as_utf8(note) for note in summary.notes]}


def as_utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def file_json(files: GuestFiles, path: str, limit: int) -> dict[str, str]:
    content = bytearray()
    with closing(files.chunks(Place(path), 0, 0)) as chunks:
        for chunk in chunks:
            content += chunk
            if len(content) > limit:
                raise CopyError(f"{path}: larger than {counted(limit, 'byte')}, or without an end")
    return {"path": path, "buf-b64": encode_base64(content)}
