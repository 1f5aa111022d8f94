"""Files between the guest and this machine."""

import posixpath
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Callable

import typer

from qga.client.copies.copying import Summary, copy_from, copy_to
from qga.client.copies.guest_files import GuestFiles
from qga.client.shapes import encode_base64
from qga.ctl import display
from qga.ctl.app import FAILED, JSON, Settings, app, discard_output, faults
from qga.ctl.interrupts import Interrupts
from qga.ctl.progress import Progress

GUEST = ("guest:", ":")

KEPT = "what is copied stays, for --resume"


@app.command(options_metavar="[OPTIONS]")
def cp(
    context: typer.Context,
    paths: list[str] = typer.Argument(
        ..., metavar="SOURCE... DESTINATION", help="guest:PATH, or :PATH, is in the guest."
    ),
    recursive: bool = typer.Option(False, "-r", "--recursive", help="Copy folders, too."),
    resume: bool = typer.Option(
        False, "--resume", help="Go on where an earlier copy with --resume has ended."
    ),
    as_json: bool = JSON,
) -> None:
    """Copy files into the guest, or out of it.

    As cp(1) does: a destination that is a folder takes the copies into it, any other is the
    name of the copy. Permissions are kept; symbolic links below a folder stay links. A file
    appears under its name when it is whole and its checksum is right: ^C leaves nothing, or
    with --resume the part that is done, as .NAME.qga-part.

    The bytes go through a data port of the guest if one is free, else through the agent. The
    guest needs sh, find, stat and sha256sum, and guest-exec to run them.

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
            observer=progress,
            ports=settings.ports(),
        )
    if settings.json:
        print(display.compact_json(summary_json(summary)))
    if summary.skipped:
        raise typer.Exit(FAILED)


@app.command()
def cat(
    context: typer.Context,
    paths: list[str] = typer.Argument(..., metavar="PATH...", help="Files of the guest."),
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
    with interruptible() as interrupts, faults(), settings.agent() as agent:
        files = GuestFiles(agent, interrupts.check)
        if settings.json:
            print(display.compact_json([file_json(files, path) for path in paths]))
            return
        for path in paths:
            with closing(files.chunks(path, 0, 0)) as chunks:
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
        {"path": path.encode(errors="backslashreplace").decode(), "reason": reason}
        for path, reason in summary.skipped
    ]
    return {**summary._asdict(), "seconds": round(summary.seconds, 3), "skipped": skipped}


def file_json(files: GuestFiles, path: str) -> dict[str, str]:
    with closing(files.chunks(path, 0, 0)) as chunks:
        return {"path": path, "buf-b64": encode_base64(b"".join(chunks))}
