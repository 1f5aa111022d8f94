"""A server of the Model Context Protocol, for AI agents that manage guests."""

import math
from typing import TYPE_CHECKING, Optional

import typer

from qga.client.hosts.trust import LeftOut
from qga.ctl import display
from qga.ctl.app import FAILED, command
from qga.ctl.command import ADVANCED
from qga.ctl.guest_words import NOWHERE
from qga.ctl.settings import Settings
from qga.ctl.targets import targets
from qga.ctl.units import seconds
from qga.ctl.values import NotUsable, finite_duration, parse_size, size

if TYPE_CHECKING:
    from qga.client.copies.folder import HostFolder
    from qga.mcp.trail import Trail

MISSING = (
    "mcp requires the Python package 'mcp', and Python 3.10 or later: pip install 'qga[host,mcp]'"
)


@command(ADVANCED, NOWHERE)
def mcp(
    context: typer.Context,
    guest: Optional[list[str]] = typer.Option(
        None,
        "--guest",
        metavar="GUEST",
        help="Offer only this guest. May be repeated; the default is all guests of this host.",
    ),
    allow: Optional[list[str]] = typer.Option(
        None,
        "--allow",
        metavar="WHAT[,WHAT]...",
        help="Offer tools that do more than look: exec, journal, write, freeze, power.",
    ),
    host_folder: Optional[list[str]] = typer.Option(
        None,
        "--host-folder",
        metavar="DIR",
        help="Offer copies from guests into this directory, and with --allow write also into "
        "guests. Nothing outside of it is read or written. May be repeated.",
    ),
    log: str = typer.Option(
        "", metavar="FILE", help="Log each call to this file, in addition to standard error."
    ),
    max_time: str = typer.Option(
        "10m",
        metavar="DURATION",
        callback=finite_duration,
        help="How long a program or a copy may take.",
    ),
    max_copy: str = typer.Option(
        "1G", metavar="SIZE", callback=size, help="Size of the largest copy."
    ),
) -> None:
    """Serve the Model Context Protocol on standard input and output.

    An MCP client starts this command. The AI agent can then list guests, read their files, logs and
    metrics, and do what --allow permits; by default, nothing can be changed. Data from a guest is
    marked as such. The rules in the guest apply as for every client.

    \b
    Examples:
      qgactl mcp
      qgactl mcp --guest web --guest db --allow exec,write
      qgactl mcp --allow journal,freeze --log /var/log/qgactl-mcp.log
      qgactl mcp --guest web --host-folder /srv/exchange
    """
    settings: Settings = context.obj
    if settings.timeout == math.inf:
        raise typer.BadParameter("mcp needs a finite --timeout")
    find = targets(settings, guest or [])
    from qga.mcp.guests import Guests
    from qga.mcp.tools import Service

    allowed = allowances(allow or [], bool(host_folder))
    folders = [opened_folder(path) for path in host_folder or []]
    log_to = trail(log)
    try:
        from qga.mcp.server import serve
    except ModuleNotFoundError:
        display.say(MISSING)
        raise typer.Exit(FAILED) from None
    guests = Guests(lambda: find(LeftOut()), settings.timeout)
    longest, largest = seconds(max_time), parse_size(max_copy)
    serve(Service(guests, log_to, allowed, longest, folders, largest, {}))


def allowances(words: list[str], has_folders: bool) -> frozenset[str]:
    from qga.mcp.tools import ALLOWANCES, FOLDER

    given = {word.strip() for each in words for word in each.split(",") if word.strip()}
    for word in sorted(given - ALLOWANCES.keys()):
        shown = display.printable(word)
        raise typer.BadParameter(f"--allow {shown}: use one of {', '.join(ALLOWANCES)}")
    return frozenset(given | ({FOLDER} if has_folders else set()))


def opened_folder(path: str) -> "HostFolder":
    from qga.client.copies.folder import HostFolder

    try:
        return HostFolder(path)
    except OSError as error:
        raise NotUsable(f"--host-folder {display.printable(path)}: {error.strerror}") from None


def trail(path: str) -> "Trail":
    from qga.mcp.trail import Trail

    try:
        return Trail(path)
    except OSError as error:
        raise NotUsable(f"--log {display.printable(path)}: {error.strerror}") from None
