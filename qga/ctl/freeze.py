"""Freezing the guest's filesystems for a snapshot."""

import shutil
from typing import NamedTuple, Optional

import typer

from qga.client.shapes import plain
from qga.ctl import display
from qga.ctl.app import EXEC_FAILED, JSON, Settings, answer, app, faults
from qga.ctl.frozen import CannotRun, Interrupted, Outcome, freeze_and_run
from qga.wording import counted

NOT_RUNNABLE, NOT_FOUND = 126, 127  # as shells have it


class Thawed(NamedTuple):
    thawed: int


class State(NamedTuple):
    status: str


@app.command(context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] [--]")
def freeze(
    context: typer.Context,
    argv: Optional[list[str]] = typer.Argument(
        None, metavar="[COMMAND [ARG]...]", help="A program of this host, and its arguments."
    ),
    mount: Optional[list[str]] = typer.Option(
        None, metavar="PATH", help="Only the filesystem mounted there; may be repeated."
    ),
    as_json: bool = JSON,
) -> None:
    """Freeze the guest's filesystems, so that a snapshot of its disks is consistent.

    With a COMMAND, which runs on this host, they are thawed when it ends, however it ends, and
    also when qgactl is interrupted or terminated. The exit status is the command's; 125 if the
    freeze failed or froze nothing (COMMAND does not run then), if it did not last, or if the thaw
    failed; 126 if COMMAND cannot be run, 127 if it is not found.

    Without one they stay frozen until `qgactl thaw`, or until the agent's freeze-timeout. A
    frozen guest takes no other commands, and its programs wait when they write.

    \b
    Examples:
      qgactl freeze -- lvcreate --snapshot --name backup --size 5G vg/web
      qgactl freeze --mount /srv --mount / -- ./snapshot
      qgactl freeze
    """
    settings: Settings = context.obj
    if argv and shutil.which(argv[0]) is None:
        display.say(f"{argv[0]}: no such program on this host; nothing was frozen")
        raise typer.Exit(NOT_FOUND)
    try:
        with faults(EXEC_FAILED if argv else 0), settings.agent() as agent:
            outcome = freeze_and_run(agent, mount or None, argv or [])
    except Interrupted as interruption:
        raise typer.Exit(interruption.status) from None
    except CannotRun as failure:
        display.say(f"{failure}; the guest is thawed")
        raise typer.Exit(NOT_RUNNABLE) from None
    if settings.json:
        print(display.compact_json(plain(outcome)))
    else:
        show_outcome(settings.address, outcome)
    raise typer.Exit(outcome.status or 0)


def show_outcome(address: str, outcome: Outcome) -> None:
    """On stderr where a program has used stdout."""
    text = f"{address}: {counted(outcome.frozen, 'filesystem')} frozen"
    if outcome.status is None:
        print(display.printable(text))
    else:
        display.say(f"{text}, {outcome.thawed} thawed")


@app.command()
def thaw(context: typer.Context, as_json: bool = JSON) -> None:
    """Thaw the guest's filesystems, whoever has frozen them.

    None thawed means that none was frozen: if there was a freeze, it had ended before.

    \b
    Examples:
      qgactl thaw
    """
    settings: Settings = context.obj

    def show(done: Thawed) -> None:
        text = "no filesystem was frozen"
        if done.thawed:
            text = f"{counted(done.thawed, 'filesystem')} thawed"
        print(display.printable(f"{settings.address}: {text}"))

    answer(context, lambda agent: Thawed(agent.thaw()), show)


@app.command()
def status(context: typer.Context, as_json: bool = JSON) -> None:
    """Tell whether the guest's filesystems are frozen or thawed.

    \b
    Examples:
      qgactl status
    """
    answer(
        context,
        lambda agent: State(agent.freeze_status()),
        lambda state: print(display.printable(state.status)),
    )
