"""Any command of the agent, as it is on the wire."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Optional

import typer

from qga.client.agent import GuestAgent
from qga.client.errors import CommandError, CommandNotFound
from qga.client.results import CommandInfo
from qga.ctl import display
from qga.ctl.app import JSON, Settings, app, faults
from qga.ctl.arguments import ARGUMENTS
from qga.ctl.values import pairs

# From 0 to 1; all names have their beginning in common.
ALIKE = 0.8

# Bytes of a reply to a command of a plugin, of which nobody here knows what it is for.
LARGEST_REPLY = 32 * 1024 * 1024

# What QAPI says of arguments that are missing, too many, or of a wrong type.
ABOUT_ARGUMENTS = re.compile("Parameter '|Invalid parameter")


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
    string. For a string that looks like JSON write the quotes of JSON: key='"123"'. A command
    of which success is not answered, such as guest-shutdown, is over when it is accepted: null.

    \b
    Examples:
      qgactl call guest-get-time
      qgactl call guest-file-open path=/etc/hosts mode=r
      qgactl call guest-file-read handle=1000 count=65536
      qgactl call guest-exec path=/bin/ls 'arg=["-l","/"]' capture-output=true
    """
    settings: Settings = context.obj
    named = {key: parse_value(text) for key, text in pairs(arguments or []).items()}
    with faults(), settings.agent() as agent:
        value = carry_out(agent, command, named)
    print(display.compact_json(value) if settings.json else display.pretty_json(value))


def carry_out(agent: GuestAgent, command: str, arguments: dict[str, Any]) -> Any:
    """What the command returns; None at once where success is not answered."""
    known = known_commands(agent)
    try:
        if command in known and not known[command].success_response:
            return agent.order(command, arguments)
        largest = None if command in ARGUMENTS else LARGEST_REPLY
        return agent.call(command, arguments, max_reply=largest)
    except CommandNotFound as error:
        error.reason += suggestion(command, known)
        raise
    except CommandError as error:
        if ABOUT_ARGUMENTS.match(error.desc) and command in ARGUMENTS:
            error.reason += f"; its arguments: {ARGUMENTS[command] or 'none'}"
        raise


def known_commands(agent: GuestAgent) -> dict[str, CommandInfo]:
    """By name; none of an agent that may not tell."""
    try:
        return {command.name: command for command in agent.info().commands}
    except CommandError:
        return {}


def suggestion(command: str, known: Iterable[str]) -> str:
    close = [] if command in known else get_close_matches(command, known, cutoff=ALIKE)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def parse_value(text: str) -> Any:
    """JSON if it is JSON (which has no NaN and no infinity), else the text itself."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value
