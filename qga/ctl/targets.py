"""Which guests a command that looks at several of them is about."""

from collections.abc import Callable

import typer

from qga.client.hosts.discovery import find_guests
from qga.client.monitoring.watch import Target, target
from qga.ctl import display
from qga.ctl.app import Settings

HELP = "The guests: NAME or ADDRESS, or LABEL=ADDRESS; all of this host where none is named."


def targets(settings: Settings, words: list[str]) -> Callable[[], list[Target]]:
    """What gives the guests to look at: those that are named, or whichever run on this host."""
    words = words or [word for word in [settings.address] if word]
    if not words:
        return guests_here
    try:
        found = [target(word) for word in words]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            shown = display.printable(name)
            raise typer.BadParameter(f"two guests are called '{shown}'; write LABEL=ADDRESS")
    return lambda: found


def guests_here() -> list[Target]:
    """By their names; by their addresses where several have one name."""
    guests = find_guests()
    names = [guest.name for guest in guests]
    return [
        Target(guest.name if names.count(guest.name) == 1 else guest.address, guest.address)
        for guest in guests
    ]
