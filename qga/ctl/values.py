"""Values of options and arguments, and what to use instead of one that is not valid."""

import math

import typer

from qga.ctl import display
from qga.ctl.units import seconds
from qga.settings import values

DURATION = "a duration greater than 0, such as 90, 500ms, 1m or 1.5h"


class Expected(typer.BadParameter):
    """For callbacks of parameters: what a value should be, as in `use a number above 0`."""


def duration(text: str) -> str:
    """A callback: the text, once it is known to be a duration."""
    try:
        seconds(text)
    except ValueError:
        raise Expected(f"use {DURATION}, or inf for no limit") from None
    return text


def finite_duration(text: str) -> str:
    """The same without inf."""
    if duration(text) and seconds(text) == math.inf:
        raise Expected(f"use {DURATION}")
    return text


def size(text: str) -> str:
    """A callback: the text, once it is known to be a number of bytes."""
    try:
        parse_size(text)
    except ValueError:
        raise Expected("use a number of bytes, optionally with K, M or G") from None
    return text


def parse_size(text: str) -> int:
    """Bytes. ValueError for what is not a size."""
    # The agent's configuration has no use for 0, --minimum does.
    return values.parse_size(text) if text != "0" else 0


def pairs(arguments: list[str], form: str = "KEY=VALUE") -> dict[str, str]:
    """KEY=VALUE arguments; each key once."""
    named: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"'{display.printable(argument)}' is not {form}")
        if key in named:
            raise typer.BadParameter(f"'{display.printable(key)}' is given twice")
        named[key] = value
    return named
