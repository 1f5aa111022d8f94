"""Which guests a command that looks at several of them is about."""

from collections.abc import Callable

import typer

from qga.client.watch import Target, target
from qga.ctl import display
from qga.ctl.app import Settings

HELP = "The guests: ADDRESS, or NAME=ADDRESS to call one so; --connect if none."


def targets(settings: Settings, words: list[str]) -> Callable[[], list[Target]]:
    """What gives the guests to look at, those named on the command line."""
    try:
        found = [target(word) for word in words or [settings.address] if word]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not found:
        raise typer.BadParameter("say which guests: unix:PATH of each")
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            shown = display.printable(name)
            raise typer.BadParameter(f"two guests are called '{shown}'; write NAME=ADDRESS")
    return lambda: found
