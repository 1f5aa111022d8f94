"""Shutting the guest down and suspending it."""

from collections.abc import Callable
from enum import Enum
from typing import Literal, NamedTuple

import typer

from qga.client.agent import GuestAgent
from qga.ctl import display
from qga.ctl.app import answer, command
from qga.ctl.command import POWER
from qga.ctl.guest_words import Line, Surroundings, WrongWords, first_word
from qga.ctl.settings import Settings


class Accepted(NamedTuple):
    """The request that the guest has accepted; only the host sees when it is done."""

    accepted: str


class Sleep(str, Enum):
    """Where a suspended guest keeps its memory."""

    RAM = "ram"
    DISK = "disk"
    HYBRID = "hybrid"


def is_mode(words: list[str], _line: Line, surroundings: Surroundings) -> bool:
    if words[0] in set(Sleep):
        return True
    if len(words) == 1 and not surroundings.is_guest(words[0]):
        raise WrongWords(
            f"invalid value '{words[0]}' for ram|disk|hybrid: use one of ram, disk, hybrid, or "
            "the name of a guest"
        )
    return False


FORCE = typer.Option(
    False, "--force", help="Ignore inhibitor locks in the guest, such as that of an upgrade."
)


@command(POWER)
def shutdown(
    context: typer.Context,
    halt: bool = typer.Option(
        False, "--halt", help="Halt the guest, but leave the virtual machine running."
    ),
    force: bool = FORCE,
) -> None:
    """Shut the guest down cleanly.

    qgactl returns when the guest has accepted the request. QEMU, libvirt or Proxmox report when
    the guest is down.

    \b
    Examples:
      qgactl shutdown web
      qgactl shutdown web --halt
    """
    mode: Literal["halt", "powerdown"] = "halt" if halt else "powerdown"
    order(context, mode, lambda agent: agent.shutdown(mode, force=force))


@command(POWER)
def reboot(context: typer.Context, force: bool = FORCE) -> None:
    """Reboot the guest cleanly.

    qgactl returns when the guest has accepted the request.

    \b
    Examples:
      qgactl reboot web
    """
    order(context, "reboot", lambda agent: agent.shutdown("reboot", force=force))


@command(POWER, first_word("GUEST ram|disk|hybrid", is_mode))
def suspend(
    context: typer.Context,
    mode: Sleep = typer.Argument(
        Sleep.RAM, metavar="ram|disk|hybrid", help="Sleep state (default: ram).", show_default=False
    ),
) -> None:
    """Suspend the guest to RAM, to disk, or to both.

    qgactl returns when the guest has accepted the request. The host wakes a guest from ram and
    hybrid with system_wakeup (QMP) or `virsh dompmwakeup`. A guest suspended to disk is off and
    needs swap space; start it as usual.

    \b
    Examples:
      qgactl suspend web
      qgactl suspend web disk
    """
    order(context, f"suspend to {mode.value}", lambda agent: agent.suspend(mode.value))


def order(context: typer.Context, name: str, carry_out: Callable[[GuestAgent], None]) -> None:
    settings: Settings = context.obj

    def ask(agent: GuestAgent) -> Accepted:
        # A guest that goes down sends no reply; the agent's acceptance is all there is.
        carry_out(agent)
        return Accepted(name)

    answer(
        context, ask, lambda done: display.confirm(f"{settings.guest}: {done.accepted} accepted")
    )
