"""Freezing the guest's filesystems for a snapshot."""

import shutil
from typing import NamedTuple, Optional

import typer

from qga.client.conversion import plain
from qga.ctl import display
from qga.ctl.app import EXEC_FAILED, answer, command, faults
from qga.ctl.command import SNAPSHOTS
from qga.ctl.frozen import CannotRun, Interrupted, Outcome, freeze_and_run
from qga.ctl.guest_words import before_dashes, unless_program_here
from qga.ctl.settings import Settings
from qga.wording import counted

NOT_RUNNABLE, NOT_FOUND = 126, 127  # as shells have it


class Thawed(NamedTuple):
    thawed: int


class State(NamedTuple):
    status: str


@command(
    SNAPSHOTS,
    before_dashes("GUEST [-- COMMAND]", unless_program_here),
    context_settings={"allow_interspersed_args": False},
)
def freeze(
    context: typer.Context,
    argv: Optional[list[str]] = typer.Argument(
        None, metavar="[-- COMMAND [ARG]...]", help="A command of this host."
    ),
    mount: Optional[list[str]] = typer.Option(
        None,
        metavar="PATH",
        help="Freeze only the filesystem mounted here. May be repeated.",
    ),
) -> None:
    """Freeze filesystems, run a command on the host, and thaw them.

    The filesystems are thawed when COMMAND exits, for whatever reason, and also when qgactl is
    interrupted or terminated. The exit status is that of COMMAND; 125 if the freeze failed, froze
    nothing (COMMAND does not run then) or did not last, or if the thaw failed; 126 if COMMAND
    cannot be run; 127 if it is not found.

    Without COMMAND the filesystems stay frozen until `qgactl thaw`, or until the agent's
    freeze-timeout. A frozen guest refuses most other commands, and programs that write are
    blocked.

    \b
    Examples:
      qgactl freeze web -- lvcreate --snapshot --name backup --size 5G vg/web
      qgactl freeze web --mount /srv --mount / -- ./snapshot
      qgactl freeze web
    """
    settings: Settings = context.obj
    # A typing mistake should not freeze a guest.
    if argv and shutil.which(argv[0]) is None:
        reason = f"{argv[0]}: no such program on this host; nothing was frozen"
        display.say("; ".join(filter(None, [reason, settings.guest_doubt])))
        raise typer.Exit(NOT_FOUND)
    try:
        with faults(EXEC_FAILED if argv else 0), settings.agent() as agent:
            outcome = freeze_and_run(agent, mount or None, argv or [])
    except Interrupted as interruption:
        raise typer.Exit(interruption.status) from None
    except CannotRun as failure:
        display.say(f"{failure}; the filesystems are thawed")
        raise typer.Exit(NOT_RUNNABLE) from None
    if settings.structured:
        settings.print(plain(outcome))
    else:
        show_outcome(settings.guest, outcome)
    raise typer.Exit(outcome.status or 0)


def show_outcome(guest: str, outcome: Outcome) -> None:
    """Print the outcome, after a command on stderr, because it may have used stdout."""
    text = f"{guest}: {counted(outcome.frozen, 'filesystem')} frozen"
    if outcome.status is None:
        display.confirm(text)
    else:
        display.note(f"{text}, {outcome.thawed} thawed")


@command(SNAPSHOTS)
def thaw(context: typer.Context) -> None:
    """Thaw all frozen filesystems.

    It does not matter who has frozen them. "No filesystem was frozen" means that any
    earlier freeze had already ended.

    \b
    Examples:
      qgactl thaw web
    """
    settings: Settings = context.obj

    def show(done: Thawed) -> None:
        text = "no filesystem was frozen"
        if done.thawed:
            text = f"{counted(done.thawed, 'filesystem')} thawed"
        display.confirm(f"{settings.guest}: {text}")

    answer(context, lambda agent: Thawed(agent.thaw()), show)


@command(SNAPSHOTS)
def status(context: typer.Context) -> None:
    """Report whether the filesystems are frozen or thawed.

    \b
    Examples:
      qgactl status web
    """
    answer(
        context,
        lambda agent: State(agent.freeze_status()),
        lambda state: print(display.printable(state.status)),
    )
