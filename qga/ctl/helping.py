"""`qgactl help`: the same as --help."""

from typing import Any, Optional

import typer

from qga.ctl.app import app


@app.command(name="help", hidden=True)
def show_help(
    context: typer.Context,
    command: Optional[str] = typer.Argument(None, metavar="[COMMAND]", help="A command of qgactl."),
) -> None:
    """Show the help of qgactl, or of one of its commands.

    \b
    Examples:
      qgactl help
      qgactl help freeze
    """
    parent: Any = context.parent
    if command is None:
        print(parent.get_help())
        return
    found = parent.command.get_command(parent, command)
    if found is None:
        raise typer.BadParameter(f"there is no command '{command}'", ctx=parent)
    print(found.get_help(typer.Context(found, info_name=command, parent=parent)))
