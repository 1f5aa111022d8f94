"""Usage errors, worded by qgactl itself.

What must stay true: no text of the libraries that parse and convert arguments reaches a user.
Depending on its version, typer takes them from click, from a copy of click or from pydantic, and
the texts differ. So a value that cannot be converted is reported here, from the declaration of the
parameter.
"""

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

import typer

from qga.ctl.guest_words import no_such_option
from qga.ctl.tables import printable
from qga.ctl.values import Expected, NotUsable

# of the copy of click in typer, or of the click that is installed
UsageError: Any = typer.BadParameter.__mro__[1]


PARSERS_WORDS = {
    r"Got unexpected extra arguments?(\(s\))? \((.*)\)": r"too many arguments: \2",
    r"No such command '(.*?)'": r"no such command: \1",
    r"Missing command": "no command given",
    r"[Oo]ption '?(\S+?)'? requires an argument": r"option \1 needs a value",
    r"[Oo]ption '?(\S+?)'? does not take a value": r"option \1 takes no value",
}


def command_of(app: typer.Typer) -> Any:
    """The command that typer makes of the app, with our messages and metavars."""
    group: Any = typer.main.get_command(app)
    for command in (group, *group.commands.values()):
        for parameter in command.params:
            _report_in_our_words(command, parameter)
            _show_metavar_alone(parameter)
    return group


def sentence(error: Any) -> str:
    """What was wrong, in one line, and which help to read."""
    command = error.ctx.command_path if error.ctx else "qgactl"
    ours = isinstance(error, typer.BadParameter)
    message = error.message if ours else _in_our_words(error)
    place = getattr(error.ctx.command, "place", None) if error.ctx else None
    if place and place.example and message.startswith("missing argument"):
        message += f"; type {command} {place.example}"
    text = " ".join(message.split())
    text = printable(text if text.endswith("...") else text.rstrip("."))
    return text if isinstance(error, NotUsable) else f"{text} (see {command} --help)"


def _in_our_words(error: Any) -> str:
    """An error that the parser has found."""
    text: str = error.message
    # NoSuchOption, of which there is one in click and one in typer.
    if hasattr(error, "possibilities"):
        return _unknown_option(error)
    for theirs, ours in PARSERS_WORDS.items():
        text = re.sub(theirs, ours, text)
    return text


def _unknown_option(error: Any) -> str:
    name, context = error.option_name, error.ctx
    if context and context.parent is None:
        owners = [each.name for each in context.command.commands.values() if name in _options(each)]
        if owners:
            return f"{name} goes after the command: qgactl {owners[0]} {name}"
    return no_such_option(name, error.possibilities or ())


def _options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def _report_in_our_words(command: Any, parameter: Any) -> None:
    convert = parameter.process_value

    def process(context: Any, value: Any) -> Any:
        try:
            return convert(context, value)
        except Expected as expected:
            wanted = expected.message
        except typer.BadParameter:
            wanted = "".join(_expectation(command, parameter.name))
        raise typer.BadParameter(_complaint(parameter, value, wanted), ctx=context)

    parameter.process_value = process


def _complaint(parameter: Any, value: Any, wanted: str) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = parameter.metavar or parameter.name.upper()
    if not is_argument:
        name = max(parameter.opts, key=len)
    elif re.fullmatch(r"\[[^][]*\]", name):  # [GUEST], but not [HOST:]PORT
        name = name[1:-1]
    reason = f": {wanted}" if wanted else ""
    if value is None or value == ():
        return f"missing {'argument' if is_argument else 'option'} {name}{reason}"
    shown = value if isinstance(value, str) else " ".join(map(str, value))
    return f"invalid value '{shown}' for {name}{reason}"


def _expectation(command: Any, name: str) -> Iterator[str]:
    """What the declaration of the parameter asks for; nothing if any text will do."""
    # The parameters of click have lost what the annotations said.
    declared = inspect.signature(inspect.unwrap(command.callback)).parameters[name]
    kinds = [kind for kind in get_args(declared.annotation) if kind is not type(None)]
    kind = kinds[0] if kinds else declared.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        words = [str(member.value) for member in kind]
        yield f"use {words[0]}" if len(words) == 1 else f"use one of {', '.join(words)}"
    elif kind in (int, float):
        yield "use a whole number" if kind is int else "use a number"
        least, most = declared.default.min, declared.default.max
        if least is not None and most is not None:
            yield f" from {least} to {most}"
        elif least is not None:
            yield f" of at least {least}"


def _show_metavar_alone(parameter: Any) -> None:
    """typer 0.29 puts brackets around an argument's metavar and the Python type after it."""
    if parameter.param_type_name != "argument" or not hasattr(parameter, "display_type_rich"):
        return
    metavar = parameter.metavar or parameter.name.upper()
    if not parameter.required and not metavar.startswith("["):
        metavar = f"[{metavar}]"
    if parameter.nargs != 1 and "..." not in metavar:
        metavar += "..."
    parameter.display_type_rich = lambda ctx: None
    parameter._usage_display_name = lambda: metavar
