"""Files between the guest and this machine."""

import posixpath
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Callable

import typer

from qga.client.commands.files import LIMIT
from qga.client.copies.copying import GROWTH, Summary, copy_from, copy_to
from qga.client.copies.guest_files import GuestFiles
from qga.client.copies.trees import Place
from qga.client.errors import AgentError, CopyError
from qga.client.shapes import encode_base64
from qga.ctl import display
from qga.ctl.app import FAILED, JSON, Settings, app, discard_output, faults
from qga.ctl.interrupts import Interrupts
from qga.ctl.progress import Progress
from qga.ctl.storage import parse_size
from qga.wording import counted

GUEST = ("guest:", ":")

KEPT = "what is copied stays, for --resume"

MIB = 1024 * 1024


@app.command(options_metavar="[OPTIONS]")
def cp(
    context: typer.Context,
    paths: list[str] = typer.Argument(
        ..., metavar="SOURCE... DESTINATION", help="guest:PATH, or :PATH, is in the guest."
    ),
    recursive: bool = typer.Option(False, "-r", "--recursive", help="Copy directories, too."),
    preserve: bool = typer.Option(
        False, "-p", "--preserve", help="Set permissions exactly, ignoring the umask."
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Go on where an earlier copy with --resume has ended."
    ),
    growth: str = typer.Option(
        f"{GROWTH // MIB}M",
        "--max-growth",
        metavar="SIZE",
        help="Skip a file that grows by more than this while it is copied.",
    ),
    as_json: bool = JSON,
) -> None:
    """Copy files into the guest, or out of it.

    As cp(1) does: a destination that is a directory takes the copies into it, any other is the
    name of the copy. New files and directories get the permissions of the originals, less the
    umask unless -p; a file that is replaced keeps its owner and permissions. Symbolic links below
    a directory stay links. A file appears under its name when it is whole and its checksum is
    right: ^C leaves nothing, or with --resume the part that is done, as .NAME.qga-part.

    A FIFO or symbolic link that you name is written through. A device is only written if it is
    the destination itself, and nothing is written through what is found in a directory.

    The bytes go through a data port of the guest if one is free, else through the agent. The
    guest needs sh, find, stat and sha256sum, and guest-exec to run them. Without guest-exec
    single files can be copied, and a note says what is lost.

    \b
    Examples:
      qgactl cp nginx.conf guest:/etc/nginx/
      qgactl cp guest:/var/log/syslog guest:/var/log/auth.log logs/
      qgactl cp -r site guest:/srv/www
      qgactl cp --resume disk.img :/var/tmp/disk.img
    """
    settings: Settings = context.obj
    *sources, destination = paths
    if not sources:
        raise typer.BadParameter("say what to copy, and where to: SOURCE... DESTINATION")
    copy = direction(sources, destination)
    limit, ports = parse_size(growth), settings.ports()
    with (
        interruptible(KEPT if resume else "") as interrupts,
        faults(),
        settings.agent() as agent,
        Progress(interrupts.check, quiet=settings.json) as progress,
    ):
        summary = copy(
            agent,
            [path_of(path) for path in sources],
            path_of(destination),
            recursive=recursive,
            resume=resume,
            preserve=preserve,
            growth=limit,
            observer=progress,
            ports=ports,
        )
    if settings.json:
        print(display.compact_json(summary_json(summary)))
    if summary.skipped:
        raise typer.Exit(FAILED)


@app.command()
def cat(
    context: typer.Context,
    paths: list[str] = typer.Argument(..., metavar="PATH...", help="Files of the guest."),
    largest: str = typer.Option(
        f"{LIMIT // MIB}M",
        "--max-size",
        metavar="SIZE",
        help="With --json: fail for a file that is larger, or never ends.",
    ),
    as_json: bool = JSON,
) -> None:
    """Write files of the guest to standard output, as they come.

    \b
    Examples:
      qgactl cat /etc/os-release
      qgactl cat /proc/loadavg /proc/uptime
      qgactl cat /var/log/syslog | grep -i error
    """
    settings: Settings = context.obj
    limit = parse_size(largest)
    with interruptible() as interrupts, faults(), settings.agent() as agent:
        files = GuestFiles(agent, interrupts.check)
        if settings.json:
            print(display.compact_json([file_json(files, path, limit) for path in paths]))
            return
        for path in paths:
            with closing(files.chunks(Place(path), 0, 0)) as chunks:
                for chunk in chunks:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()


@contextmanager
def interruptible(last_words: str = "") -> Iterator[Interrupts]:
    """Signals end the command where it leaves nothing behind; so does output nobody reads."""
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
            display.say(display.reason_of(error))
            raise typer.Exit(FAILED) from None


def direction(sources: list[str], destination: str) -> Callable[..., Summary]:
    if is_in_guest(destination) and not any(map(is_in_guest, sources)):
        return copy_to
    if not is_in_guest(destination) and all(map(is_in_guest, sources)):
        return copy_from
    raise typer.BadParameter(
        "either all sources or the destination must be in the guest: guest:PATH"
    )


def is_in_guest(path: str) -> bool:
    return path.startswith(GUEST)


def path_of(path: str) -> str:
    """The path alone. In the guest one that is not absolute begins at the root."""
    return posixpath.join("/", path.partition(":")[2]) if is_in_guest(path) else path


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
                raise CopyError(f"{path}: has more than {counted(limit, 'byte')}, or does not end")
    return {"path": path, "buf-b64": encode_base64(content)}
