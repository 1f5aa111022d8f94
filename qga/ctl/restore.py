"""What a guest needs after it was restored, resumed or cloned."""

from collections.abc import Sequence
from typing import Callable, Optional, TypeVar

import typer

from qga.client.agent import GuestAgent
from qga.client.restore import NewIdentity, RestoreStep, Resynced
from qga.ctl.app import FAILED, answer, command
from qga.ctl.command import SNAPSHOTS
from qga.ctl.system import difference
from qga.ctl.tables import show_facts, show_table

Outcome = TypeVar("Outcome", Resynced, NewIdentity)


@command(SNAPSHOTS)
def resync(context: typer.Context) -> None:
    """Repair a guest that was restored, resumed or cloned.

    Its clock is set to this host's if it is more than a second off. The kernel gets random numbers
    of this host, because guests that continue from one snapshot draw equal ones. DHCP leases are
    renewed. A step that fails does not stop the others. This needs qga in the guest.

    \b
    Examples:
      qgactl resync web
      qgactl resync web --json
    """
    carry_out(context, GuestAgent.resync, show_resynced)


def show_resynced(resynced: Resynced) -> None:
    show_steps(resynced.steps)
    clocks = (("before", resynced.ahead_before), ("after", resynced.ahead_after))
    show_facts(
        (f"Clock {when}", "" if ahead is None else difference(ahead)) for when, ahead in clocks
    )


@command(SNAPSHOTS)
def identity(
    context: typer.Context,
    hostname: Optional[str] = typer.Option(
        None, metavar="NAME", help="Set the host name.", show_default=False
    ),
    machine_id: bool = typer.Option(False, "--machine-id", help="Generate a new machine ID."),
    ssh_host_keys: bool = typer.Option(
        False, "--ssh-host-keys", help="Generate new ssh host keys, and have sshd serve them."
    ),
) -> None:
    """Give a cloned guest an identity of its own.

    Nothing is rebooted; what goes on with the old identity, such as ssh connections, is listed. A
    part that fails stays as it was. This needs qga in the guest.

    \b
    Examples:
      qgactl identity web-2 --hostname web-2 --machine-id --ssh-host-keys
    """
    if hostname is None and not machine_id and not ssh_host_keys:
        raise typer.BadParameter(
            "nothing to change: use --hostname NAME, --machine-id or --ssh-host-keys"
        )
    carry_out(
        context,
        lambda agent: agent.set_identity(
            hostname, machine_id=machine_id, ssh_host_keys=ssh_host_keys
        ),
        show_identity,
    )


def show_identity(new: NewIdentity) -> None:
    show_steps(new.steps)
    for text in new.remaining:
        show_facts([("Still old", text)])


def carry_out(
    context: typer.Context, act: Callable[[GuestAgent], Outcome], show: Callable[[Outcome], None]
) -> None:
    """Act, show the outcome, and exit with FAILED if a step has failed."""
    outcomes: list[Outcome] = []

    def ask(agent: GuestAgent) -> Outcome:
        outcomes.append(act(agent))
        return outcomes[0]

    answer(context, ask, show)
    if outcomes[0].failed:
        raise typer.Exit(FAILED)


def show_steps(steps: Sequence[RestoreStep]) -> None:
    show_table(("Step", "Result", "What was done"), steps, folding=("What was done",))
