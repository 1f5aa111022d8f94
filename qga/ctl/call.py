"""Any command of the agent."""

import json
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Optional

import typer

from qga.client.agent import GuestAgent
from qga.client.errors import CommandError, CommandNotFound
from qga.client.results import CommandInfo
from qga.client.wire import whole_number
from qga.ctl import display
from qga.ctl.app import command, faults
from qga.ctl.arguments import ARGUMENTS
from qga.ctl.command import ADVANCED
from qga.ctl.guest_words import Line, Surroundings, first_word
from qga.ctl.settings import Settings
from qga.ctl.values import pairs
from qga.wording import suggestion

# From 0 to 1. All names have a prefix in common.
ALIKE = 0.8

# Bytes of the reply to a command of a plugin.
LARGEST_REPLY = 32 * 1024 * 1024

# QAPI's errors for arguments that are missing, too many, or of a wrong type.
ABOUT_ARGUMENTS = re.compile("Parameter '|Invalid parameter")


def is_command(words: list[str], _line: Line, surroundings: Surroundings) -> bool:
    """Whether the first word is the agent's command, and no guest before it."""
    if len(words) < 2:
        return is_standard(words[0]) or not surroundings.is_guest(words[0])
    if is_argument(words[1]):
        return True
    return is_standard(words[0]) and not is_standard(words[1])


def is_argument(word: str) -> bool:
    return "=" in word or is_json(word)


def is_json(word: str) -> bool:
    return word.lstrip().startswith(("{", "["))


def is_standard(word: str) -> bool:
    return word.startswith(("guest-", "qga-"))


@command(ADVANCED, first_word("GUEST COMMAND [KEY=VALUE|JSON]...", is_command))
def call(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="COMMAND", help="A command, such as guest-get-time.", show_default=False
    ),
    arguments: Optional[list[str]] = typer.Argument(
        None, metavar="KEY=VALUE", help="Its arguments, or all of them as one JSON object."
    ),
) -> None:
    """Run any command of the agent and print its reply as JSON.

    A VALUE that is valid JSON is sent as such (5, true, null, [1,2], {"a":"b"}), anything else as
    a string. Quote a string that looks like JSON: key='"123"'. Commands that do not reply on
    success, such as guest-shutdown, print null once the agent has accepted them.

    \b
    Examples:
      qgactl call web guest-get-time
      qgactl call web guest-file-open path=/etc/hosts mode=r
      qgactl call web guest-file-read '{"handle": 1000, "count": 65536}'
      qgactl call web guest-exec path=/bin/ls 'arg=["-l","/"]' capture-output=true
    """
    settings: Settings = context.obj
    named = parse_arguments(arguments or [])
    with faults(), settings.agent() as agent:
        value = carry_out(agent, name, named)
    if settings.structured:
        settings.print(value)
    else:
        print(display.pretty_json(value))


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """Those of KEY=VALUE words, or of a single JSON object."""
    if not any(map(is_json, words)):
        return {key: parse_value(text) for key, text in pairs(words).items()}
    shown = display.printable(" ".join(words))
    if len(words) > 1:
        raise typer.BadParameter(f"'{shown}': use one JSON object, or KEY=VALUE words")
    try:
        value = json.loads(words[0], parse_constant=no_constant, parse_int=whole_number)
    except RecursionError:
        raise typer.BadParameter(f"'{shown}' is nested too deeply") from None
    except ValueError as error:
        raise typer.BadParameter(f"'{shown}' is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(
            f"'{shown}' is not a JSON object, such as '{{\"KEY\": \"VALUE\"}}'"
        )
    return value


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def carry_out(agent: GuestAgent, command: str, arguments: dict[str, Any]) -> Any:
    """The reply; None for a command that does not reply on success."""
    known = known_commands(agent)
    try:
        if command in known and not known[command].success_response:
            return agent.order(command, arguments)
        largest = None if command in ARGUMENTS else LARGEST_REPLY
        return agent.call(command, arguments, max_reply=largest)
    except CommandNotFound as error:
        error.reason += command_suggestion(command, known)
        raise
    except CommandError as error:
        if ABOUT_ARGUMENTS.match(error.desc) and command in ARGUMENTS:
            its = ARGUMENTS[command]
            reasons = [*unknown_arguments(arguments, its), error.reason]
            error.reason = "; ".join([*reasons, f"its arguments: {its or 'none'}"])
        raise


def unknown_arguments(arguments: Iterable[str], known: str) -> Iterator[str]:
    names = known.replace("[", "").replace("]", "").split(", ")
    for name in arguments:
        if name not in names:
            similar = get_close_matches(name, names, 1)
            yield f"no argument '{name}'" + (f" ({suggestion(similar)})" if similar else "")


def known_commands(agent: GuestAgent) -> dict[str, CommandInfo]:
    """By name; nothing if guest-info is disabled."""
    try:
        return {command.name: command for command in agent.info().commands}
    except CommandError:
        return {}


def command_suggestion(command: str, known: Iterable[str]) -> str:
    if command in known:
        return ""
    wanted = command.lower().replace("_", "-")
    whole = [f"{prefix}{wanted}" for prefix in ("", "guest-", "qga-")]
    close = [name for name in known if name in whole]
    close = close or get_close_matches(command, known, cutoff=ALIKE)
    return f"; {suggestion(close)}" if close else ""


def parse_value(text: str) -> Any:
    """The value if the text is JSON (without NaN and infinity), else the text itself."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value
