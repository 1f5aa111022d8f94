"""What this guest's administrator lets the host do.

Allow first, block on top, and the frozen list above all. Clients skip a refused command only
because of the class of the error, so a command that is off as a whole is CommandNotFound.
"""

from __future__ import annotations

from collections.abc import Iterable

from qga.errors import CommandNotFound
from qga.registry import Command


class Policy:
    """The rules of one channel.

    allow: names of the commands that are allowed; none means all.
    block: names of the commands that are not, whatever `allow` says.
    """

    def __init__(self, allow: Iterable[str] = (), block: Iterable[str] = ()) -> None:
        self._allow = frozenset(allow)
        self._block = frozenset(block)

    def allows(self, command: Command, frozen: bool) -> bool:
        """Whether the channel may call `command`; `frozen` while filesystems are frozen."""
        if frozen and not command.frozen:
            return False
        if command.name in self._block:
            return False
        return not self._allow or command.name in self._allow

    def check(self, command: Command, frozen: bool) -> None:
        """Raise CommandNotFound where `allows` is false."""
        if not self.allows(command, frozen):
            raise CommandNotFound(
                f"Command {command.name} has been disabled: the command is not allowed"
            )
