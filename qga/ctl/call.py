"""Any command of the agent, as it is on the wire."""

import json
from typing import Any, Optional

import typer

from qga.ctl import display
from qga.ctl.app import JSON, Settings, app, faults
from qga.ctl.values import pairs


@app.command()
def call(
    context: typer.Context,
    command: str = typer.Argument(..., help="Such as guest-get-time.", show_default=False),
    arguments: Optional[list[str]] = typer.Argument(
        None, metavar="KEY=VALUE", help="Its arguments."
    ),
    as_json: bool = JSON,
) -> None:
    """Have the agent run any of its commands, and show what it returns as JSON.

    A value that is JSON is sent as such (5, true, null, [1,2], {"a":"b"}), any other as a
    string. For a string that looks like JSON write the quotes of JSON: key='"123"'.

    \b
    Examples:
      qgactl call guest-get-time
      qgactl call guest-file-open path=/etc/hosts mode=r
      qgactl call guest-file-read handle=1000 count=65536
      qgactl call guest-exec path=/bin/ls 'arg=["-l","/"]' capture-output=true
    """
    settings: Settings = context.obj
    named = pairs(arguments or [])
    with faults(), settings.agent() as agent:
        value = agent.call(command, {key: parse_value(text) for key, text in named.items()})
    print(display.compact_json(value) if settings.json else display.pretty_json(value))


def parse_value(text: str) -> Any:
    """JSON if it is JSON (which has no NaN and no infinity), else the text itself."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value
