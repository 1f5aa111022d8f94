"""Shutting the guest down and putting it to sleep."""

from collections.abc import Callable
from enum import Enum
from typing import Literal, NamedTuple

import typer

from qga.client.agent import GuestAgent
from qga.ctl.app import JSON, Settings, answer, app
from qga.ctl.tables import printable


class Accepted(NamedTuple):
    """What the guest has agreed to do; that it is done is seen from outside."""

    accepted: str


class Sleep(str, Enum):
    """Where the guest keeps its memory meanwhile."""

    RAM = "ram"
    DISK = "disk"
    HYBRID = "hybrid"


FORCE = typer.Option(
    False, "--force", help="Override locks against it, such as that of an upgrade in the guest."
)


@app.command()
def shutdown(
    context: typer.Context,
    halt: bool = typer.Option(False, "--halt", help="Stop it, but leave the machine switched on."),
    force: bool = FORCE,
    as_json: bool = JSON,
) -> None:
    """Shut the guest down, as its own administrator would.

    Returns once the guest has accepted it: QEMU, libvirt or Proxmox tell when it is down.

    \b
    Examples:
      qgactl shutdown
      qgactl shutdown --halt
    """
    mode: Literal["halt", "powerdown"] = "halt" if halt else "powerdown"
    order(context, mode, lambda agent: agent.shutdown(mode, force=force))


@app.command()
def reboot(context: typer.Context, force: bool = FORCE, as_json: bool = JSON) -> None:
    """Restart the guest; returns once it has accepted that.

    \b
    Examples:
      qgactl reboot
    """
    order(context, "reboot", lambda agent: agent.shutdown("reboot", force=force))


@app.command()
def suspend(
    context: typer.Context,
    mode: Sleep = typer.Argument(
        Sleep.RAM, metavar="ram|disk|hybrid", help="Where; ram if not said.", show_default=False
    ),
    as_json: bool = JSON,
) -> None:
    """Put the guest to sleep; returns once it has accepted that.

    From ram and hybrid, which keep the machine on, the host wakes it (QMP's system_wakeup, virsh
    dompmwakeup). A guest that sleeps on its disk is off, and is started again as usual; it
    needs swap space for that.

    \b
    Examples:
      qgactl suspend
      qgactl suspend disk
    """
    order(context, f"suspend to {mode.value}", lambda agent: agent.suspend(mode.value))


def order(context: typer.Context, name: str, command: Callable[[GuestAgent], None]) -> None:
    settings: Settings = context.obj

    def ask(agent: GuestAgent) -> Accepted:
        command(agent)
        return Accepted(name)

    answer(
        context, ask, lambda done: print(f"{printable(settings.address)}: {done.accepted} accepted")
    )
