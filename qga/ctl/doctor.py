"""What is wrong with the way to an agent, from this end."""

import typer
from rich.console import Console
from rich.text import Text

from qga.client.hosts.checkup import FAILED, OK, WARNING, Check, checkup
from qga.ctl import display
from qga.ctl.app import FAILED as FAILURE
from qga.ctl.app import JSON, Settings, app

STYLES = {OK: "green", WARNING: "yellow", FAILED: "red"}


@app.command()
def doctor(
    context: typer.Context,
    guest: str = typer.Argument(
        "", metavar="[ADDRESS]", help="As of --connect, which it stands for.", show_default=False
    ),
    as_json: bool = JSON,
) -> None:
    """Look at all that an agent's answer needs, and say what to try.

    That is libvirt's definition of the domain, the socket, permissions, the agent itself, how fast
    it answers, which commands are switched off, frozen filesystems, the clock. Ends with 0 unless
    a check failed; warnings are no failure. In the guest, qemu-ga --doctor looks at the other end.

    \b
    Examples:
      qgactl doctor web
      qgactl doctor libvirt:qemu+ssh://root@host/system/web
      qgactl doctor unix:/run/web.sock --json
    """
    settings: Settings = context.obj
    address = guest or settings.address
    if not address:
        settings.agent()  # says what is missing
    made = []
    try:
        for check in checkup(address, settings.timeout):
            made.append(check)
            if not settings.json:
                show(check)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    healthy = all(check.state != FAILED for check in made)
    if settings.json:
        report = {"address": address, "healthy": healthy}
        print(display.compact_json({**report, "checks": [check._asdict() for check in made]}))
    raise typer.Exit(0 if healthy else FAILURE)


def show(check: Check) -> None:
    """A line, and below it what to try."""
    console = Console(markup=False, highlight=False, emoji=False)
    line = Text(f"{check.state:8}", STYLES[check.state])
    line.append(display.printable(f"{check.subject}: {check.detail}"), "default")
    console.print(line, soft_wrap=True)
    if check.advice:
        console.print(Text(display.printable(f"{'':8}try: {check.advice}")), soft_wrap=True)
