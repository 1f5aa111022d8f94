"""`qgactl help`: the same as --help."""

from difflib import get_close_matches
from typing import Any, Optional

import typer

from qga.ctl.app import command
from qga.ctl.command import ADVANCED
from qga.ctl.guest_words import NOWHERE
from qga.wording import suggestion


@command(ADVANCED, NOWHERE, name="help", hidden=True)
def show_help(
    context: typer.Context,
    name: Optional[str] = typer.Argument(None, metavar="[COMMAND]", help="A command of qgactl."),
) -> None:
    """Show the help of qgactl, or of one of its commands.

    \b
    Examples:
      qgactl help
      qgactl help freeze
    """
    parent: Any = context.parent
    if name is None:
        print(parent.get_help())
        return
    found = parent.command.get_command(parent, name)
    if found is None:
        similar = suggestion(get_close_matches(name, parent.command.commands))
        reason = "; ".join(filter(None, [f"no such command: {name}", similar]))
        raise typer.BadParameter(reason, ctx=parent)
    print(found.get_help(typer.Context(found, info_name=name, parent=parent)))
