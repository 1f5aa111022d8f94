"""Programs of the guest, run as if they were here."""

import math
import sys
from pathlib import Path
from typing import Optional

import typer

from qga.ctl import display
from qga.ctl.app import EXEC_FAILED, JSON, Settings, app, faults, positive
from qga.ctl.values import pairs


@app.command(
    name="exec",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
def execute(
    context: typer.Context,
    argv: list[str] = typer.Argument(..., help="Program and arguments."),
    env: Optional[list[str]] = typer.Option(
        None, metavar="KEY=VALUE", help="Replace its environment; may be repeated."
    ),
    input_file: str = typer.Option(
        "", "--input", metavar="FILE", help="The program's standard input; - is ours."
    ),
    timeout: float = typer.Option(
        math.inf, metavar="SECONDS", callback=positive, help="How long the program may take."
    ),
    as_json: bool = JSON,
) -> None:
    """Run a program in the guest, wait for it, and end as it ended.

    Its output and its exit status become those of qgactl. There is no shell in between, and no
    terminal. Put -- before the program, so that its options are not taken for qgactl's.

    \b
    Examples:
      qgactl exec -- ls -l /
      qgactl exec --input setup.sh -- /bin/sh
      qgactl exec --env PATH=/usr/bin --env LANG=C -- sh -c 'echo $LANG'
      qgactl exec --timeout 60 -- apt-get update
    """
    settings: Settings = context.obj
    variables = pairs(env) if env else None
    data = read_input(input_file) if input_file else None
    with faults(EXEC_FAILED), settings.agent() as agent:
        result = agent.exec(argv, input=data, env=variables, timeout=timeout)
    if settings.json:
        print(display.compact_json(display.exec_json(result)))
    else:
        display.show_exec(result)
    raise typer.Exit(result.status)


def read_input(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {name}: {error.strerror}") from None
