"""Why an agent does not answer, as seen from the host."""

import typer
from rich.text import Text

from qga.client.hosts.checkup import FAILED, OK, WARNING, Check, checkup
from qga.ctl import display, tables
from qga.ctl.app import FAILED as FAILURE
from qga.ctl.app import command
from qga.ctl.command import TROUBLESHOOT
from qga.ctl.settings import Settings

STYLES = {OK: "green", WARNING: "yellow", FAILED: "red"}


@command(TROUBLESHOOT)
def doctor(context: typer.Context) -> None:
    """Find out why an agent does not answer, and suggest fixes.

    The checks cover the libvirt domain, the socket and its permissions, the agent and its response
    time, disabled commands, frozen filesystems, and the clock. The exit status is 1 if a check
    failed; warnings do not count. `qemu-ga --doctor` checks the other end, in the guest.

    \b
    Examples:
      qgactl doctor web
      qgactl doctor libvirt:qemu+ssh://root@host/system/web
      qgactl doctor unix:/run/web.sock --json
    """
    settings: Settings = context.obj
    settings.require_guest()
    address = settings.address
    made = []
    try:
        for check in checkup(address, settings.timeout):
            made.append(explained(check, settings))
            if not settings.structured:
                show(made[-1])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    healthy = all(check.state != FAILED for check in made)
    if settings.structured:
        report = {"address": address, "healthy": healthy}
        settings.print({**report, "checks": [check._asdict() for check in made]})
    raise typer.Exit(0 if healthy else FAILURE)


def explained(check: Check, settings: Settings) -> Check:
    """With where the address is from, or similar names, if no guest is there."""
    if check.state != FAILED or check.subject not in ("guest", "socket"):
        return check
    reasons = filter(None, [check.detail, settings.explanation()])
    return check._replace(detail="; ".join(reasons))


def show(check: Check) -> None:
    """A line, and a second one with advice."""
    console = tables.console()
    line = Text(f"{check.state:8}", STYLES[check.state])
    line.append(display.printable(f"{check.subject}: {check.detail}"), "default")
    # Paths and commands are copied from here, so no line is broken.
    console.print(line, soft_wrap=True)
    if check.advice:
        console.print(Text(display.printable(f"{'':8}try: {check.advice}")), soft_wrap=True)
