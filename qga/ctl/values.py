"""KEY=VALUE arguments."""

import typer

from qga.ctl import display


def pairs(arguments: list[str], form: str = "KEY=VALUE") -> dict[str, str]:
    named: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"'{display.printable(argument)}' is not {form}")
        if key in named:
            raise typer.BadParameter(f"'{display.printable(key)}' is given twice")
        named[key] = value
    return named
