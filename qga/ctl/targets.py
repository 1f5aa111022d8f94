"""The guests of a command that takes several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import typer

from qga.client.hosts.discovery import FoundGuest, find_guests
from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.watch import Target, target
from qga.ctl import display
from qga.ctl.address_book import Book, is_path
from qga.ctl.settings import Settings

HELP = "Names or addresses, also as LABEL=ADDRESS; by default all guests of this host."


class Find(Protocol):
    """Finds the guests. `left_out` collects what was not believed, or cannot be read."""

    def __call__(self, left_out: LeftOut) -> list[Target]: ...


def targets(settings: Settings, words: list[str]) -> Find:
    """Finds the guests that are named, or all that run on this host."""
    words = [*filter(None, [settings.named]), *words] or [*filter(None, [settings.guest])]
    if not words:
        return guests_here
    try:
        found = [named_target(settings.book, word) for word in words]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    note_misspelt(settings.book, [each.address for each in found])
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            shown = display.printable(name)
            raise typer.BadParameter(f"two guests are called '{shown}'; use LABEL=ADDRESS")
    return lambda left_out: found


def named_target(book: Book, word: str) -> Target:
    """A guest by a name of the configuration is shown with that name."""
    label, equals, place = word.rpartition("=") if "=" in word.partition(":")[0] else ("", "", word)
    # The name stays the label, so that the socket's path is not the title of a row.
    if not place:
        raise ValueError("the name of the guest is empty")
    address = book.address(place)
    if not label and address != place and not is_path(place):
        label, equals = place, "="
    return target(f"{label}{equals}{address}")


def note_misspelt(book: Book, addresses: Iterable[str | FoundGuest]) -> None:
    """Suggest names of the configuration; connecting suggests those of running guests."""
    unknown = {each: book.suggestion(each) for each in addresses if isinstance(each, str)}
    if not any(unknown.values()):
        return
    guests = find_guests()
    for word, question in unknown.items():
        if question and not any(guest.is_called(word) for guest in guests):
            display.note(f"{word}: {question}")


def guests_here(left_out: LeftOut) -> list[Target]:
    """By their names; by their addresses where several have one name."""
    guests = find_guests(left_out)
    count = Counter(guest.name for guest in guests)
    # `busy` changes from look to look, and must not make it another guest.
    return [
        Target(guest.name if count[guest.name] == 1 else guest.address, guest._replace(busy=False))
        for guest in guests
    ]
