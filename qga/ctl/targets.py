"""Which guests a command that looks at several of them is about."""

from collections import Counter
from typing import Protocol

import typer

from qga.client.hosts.discovery import find_guests
from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.watch import Target, target
from qga.ctl import display
from qga.ctl.app import Settings

HELP = "The guests: NAME or ADDRESS, or LABEL=ADDRESS; all of this host where none is named."


class Find(Protocol):
    """What gives the guests to look at. `left_out` gets what was not believed, or not read."""

    def __call__(self, left_out: LeftOut) -> list[Target]: ...


def targets(settings: Settings, words: list[str]) -> Find:
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
    return lambda left_out: found


def guests_here(left_out: LeftOut) -> list[Target]:
    """By their names; by their addresses where several have one name."""
    guests = find_guests(left_out)
    count = Counter(guest.name for guest in guests)
    # One of which only that has changed is the guest that was asked before.
    return [
        Target(guest.name if count[guest.name] == 1 else guest.address, guest._replace(busy=False))
        for guest in guests
    ]
