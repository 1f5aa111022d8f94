"""The tools, and the permissions that each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Timer
from typing import NamedTuple, Union

from qga.client.copies.folder import HostFolder
from qga.mcp.arguments import Argument
from qga.mcp.guests import Guests
from qga.mcp.reply import Data, Note
from qga.mcp.trail import Trail

ALLOWANCES = {
    "exec": "run programs in guests",
    "journal": "read their journal, by running journalctl in them",
    "write": "write files of guests, and copy files into them",
    "freeze": "freeze and thaw their filesystems",
    "power": "shut down and reboot them",
}
"""The values of --allow."""

FOLDER = "host-folder"
"""The permission to read or write files of this host."""

SECONDS = 30.0
"""Seconds that a call may take, unless its tool extends it."""

GUEST = Argument("guest", "string", "the name of the guest, as in list_guests", True)

Result = Union[Data, Note]
Handler = Callable[..., Result]


class Service(NamedTuple):
    """The context of all tools.

    longest: seconds that a program or a copy may take. folders: directories of this host that
    copies may read and write. largest: bytes of a copy. frozen: by name of the guest, the timer
    that thaws its filesystems.
    """

    guests: Guests
    trail: Trail
    allowed: frozenset[str]
    longest: float
    folders: Sequence[HostFolder]
    largest: int
    frozen: dict[str, Timer]


class Tool(NamedTuple):
    """A tool. needs: all permissions that it requires; `a|b` is satisfied by either."""

    name: str
    help: str
    arguments: Sequence[Argument]
    handler: Handler
    needs: Sequence[str]
    seconds: float
    reads_only: bool

    def is_allowed(self, allowed: frozenset[str]) -> bool:
        return all(allowed.intersection(word.split("|")) for word in self.needs)


TOOLS: dict[str, Tool] = {}
"""All tools by name, in the order of their definition."""


def tool(
    *arguments: Argument,
    needs: Sequence[str] = (),
    seconds: float = SECONDS,
    reads_only: bool = True,
) -> Callable[[Handler], Handler]:
    """A tool with the name and the description of a function (Service, Call, arguments)."""

    def define(handler: Handler) -> Handler:
        name, text = handler.__name__, " ".join((handler.__doc__ or "").split())
        TOOLS[name] = Tool(name, text, arguments, handler, needs, seconds, reads_only)
        return handler

    return define


def offered(allowed: frozenset[str]) -> dict[str, Tool]:
    return {name: each for name, each in TOOLS.items() if each.is_allowed(allowed)}
