"""The arguments of tools: their JSON schema, and their validation.

pydantic, which the SDK uses, would convert values of other types, and its errors are verbose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, Union

from qga.wording import counted

LONGEST_TEXT = 4096
"""Characters of a string, unless the argument has its own limit."""

MOST_ITEMS = 1000
"""Strings of a list, or members of an object."""

Number = Union[int, float]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "string": ("a string", {"type": "string"}),
    "integer": ("a whole number", {"type": "integer"}),
    "number": ("a number", {"type": "number"}),
    "boolean": ("true or false", {"type": "boolean"}),
    "strings": ("a list of strings", {"type": "array", "items": {"type": "string"}}),
    "variables": (
        "an object whose values are strings",
        {"type": "object", "additionalProperties": {"type": "string"}},
    ),
}
"""The description of each kind in errors, and its schema."""


class WrongArguments(ValueError):
    """The arguments of a call are invalid; the text says what would be valid."""


class Argument(NamedTuple):
    """An argument of a tool.

    kind: a key of KINDS. least, most: the range of a number. longest: characters of a string.
    choices: the permitted strings. secret: whether the value is left out of the log. filled:
    whether it must not be empty.
    """

    name: str
    kind: str
    help: str
    required: bool = False
    least: Number | None = None
    most: Number | None = None
    longest: int = LONGEST_TEXT
    choices: Sequence[str] = ()
    secret: bool = False
    filled: bool = False

    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.least, "maximum": self.most, "enum": list(self.choices) or None}
        given = {name: value for name, value in bounds.items() if value is not None}
        return {**KINDS[self.kind][1], "description": self.help, **given}

    def check(self, value: object) -> Any:
        """Return the value if it is valid. Raises WrongArguments."""
        if not self._is_of_kind(value):
            raise WrongArguments(f"'{self.name}' must be {KINDS[self.kind][0]}")
        if (self.required and value == []) or (self.filled and value == ""):
            raise WrongArguments(f"'{self.name}' is empty")
        for text in texts_in(value):
            self._check_text(text)
        if isinstance(value, (int, float)):
            self._check_number(value)
        if self.choices and value not in self.choices:
            raise WrongArguments(f"'{self.name}' must be one of {', '.join(self.choices)}")
        return value

    def _is_of_kind(self, value: object) -> bool:
        if self.kind in ("integer", "number"):
            kinds = (int,) if self.kind == "integer" else (int, float)
            return isinstance(value, kinds) and not isinstance(value, bool)
        if self.kind == "strings":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        if self.kind == "variables":
            return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        return isinstance(value, {"string": str, "boolean": bool}[self.kind])

    def _check_text(self, text: str) -> None:
        if len(text) > self.longest:
            characters = counted(self.longest, "character")
            raise WrongArguments(f"'{self.name}' has more than {characters}")
        if "\0" in text:
            raise WrongArguments(f"'{self.name}' has a NUL character")

    def _check_number(self, value: Number) -> None:
        least = -math.inf if self.least is None else self.least
        most = math.inf if self.most is None else self.most
        if not least <= value <= most:
            bounds = (
                f"at least {self.least}"
                if self.most is None
                else f"from {self.least} to {self.most}"
            )
            raise WrongArguments(f"'{self.name}' must be {bounds}")


def texts_in(value: object) -> list[str]:
    """The strings of a value. Raises WrongArguments if there are too many."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, (list, dict)):
        return []
    texts = [*value] if isinstance(value, list) else [*value, *value.values()]
    if len(value) > MOST_ITEMS:
        raise WrongArguments(f"one argument has more than {counted(MOST_ITEMS, 'item')}")
    return texts


def schema_of(arguments: Sequence[Argument]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments."""
    return {
        "type": "object",
        "properties": {each.name: each.schema() for each in arguments},
        "required": [each.name for each in arguments if each.required],
        "additionalProperties": False,
    }


def checked(arguments: Sequence[Argument], given: Mapping[str, object]) -> dict[str, Any]:
    """Return the given arguments if they are valid. Raises WrongArguments."""
    known = {each.name: each for each in arguments}
    for name in given:
        if name not in known:
            similar = get_close_matches(name, known)
            advice = f"did you mean '{similar[0]}'?" if similar else f"use {', '.join(known)}"
            raise WrongArguments(f"unknown argument '{name[:LONGEST_TEXT]}'; {advice}")
    for each in arguments:
        if each.required and given.get(each.name) is None:
            raise WrongArguments(f"'{each.name}' is missing: {each.help}")
    return {name: known[name].check(value) for name, value in given.items() if value is not None}
