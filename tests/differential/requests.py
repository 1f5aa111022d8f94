"""How the cases spell requests."""

from __future__ import annotations

from tests.differential.agents import Case, Step


def words(text: str) -> list[str]:
    """The text's words, in which `~` stands for a space."""
    return [word.replace("~", " ") for word in text.split()]


def call(command: str, arguments: str = "") -> bytes:
    """A request; `arguments` is the inside of the JSON object, empty for none."""
    if not arguments:
        return f'{{"execute":"{command}"}}'.encode()
    return f'{{"execute":"{command}","arguments":{{{arguments}}}}}'.encode()


def given(command: str, *arguments: str) -> list[Case]:
    """One case for each set of arguments, mostly wrong ones."""
    return [Case(f"{command}: {each or 'nothing'}", (call(command, each),)) for each in arguments]


def script(name: str, *steps: Step) -> Case:
    return Case(name, steps)
