"""Values of options and arguments, and what to use instead of one that is not valid."""

import math
import re
from typing import Optional

import typer

from qga.ctl import display
from qga.ctl.units import STEP, seconds

DURATION = "a duration greater than 0, such as 90 (seconds), 500ms, 10m or 1h30m"


# KB is what people type for KiB.
SIZE = re.compile(r"([0-9]+)(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE)


class NotUsable(typer.BadParameter):
    """Something that the command line names cannot be used; reading the help does not mend it."""


class Expected(typer.BadParameter):
    """For callbacks of parameters: what a value should be, as in `use a number above 0`."""


def not_empty(text: Optional[str]) -> Optional[str]:
    """A callback: an empty value is an unset variable of a script, and not the default."""
    if text == "":
        raise Expected("it is empty; use a name, or leave the option out")
    return text


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
        raise Expected("use a number of bytes, optionally followed by K, M or G") from None
    return text


def parse_size(text: str) -> int:
    """Bytes: 4096, 16K, 16KB or 16KiB. ValueError for what is not a size."""
    found = SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is not a size")
    unit: int = STEP ** " KMGT".index((found[2] or " ").upper())
    return int(found[1]) * unit


def pairs(arguments: list[str], form: str = "KEY=VALUE", option: str = "") -> dict[str, str]:
    """KEY=VALUE arguments, or values of an option; each key once."""
    named: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            shown = display.printable(argument)
            wrong = f"invalid value '{shown}' for {option}: use" if option else f"'{shown}' is not"
            raise typer.BadParameter(f"{wrong} {form}")
        if key in named:
            raise typer.BadParameter(f"'{display.printable(key)}' is given twice")
        named[key] = value
    return named
