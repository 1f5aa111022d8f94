"""A standard group that is imported when one of its commands is first called.

Until then `qga.plugin.standard` answers for it: names, access, what the policy, guest-info and the
audit trail ask about. That saves a megabyte in guests whose hosts only ping the agent.

What must stay true: while filesystems are frozen nothing is imported, so groups with commands for
that time are complete before.
"""

from __future__ import annotations

from importlib import import_module

from qga.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from qga.plugin.entry import Command
    from qga.plugin.registry import CommandGroup


class Deferred:
    """`path`: its module in qga.commands, a dot, and its class.

    commands: those that this guest can offer.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.commands: list[Command] = []

    def add(self, command: Command) -> None:
        command.deferred = self
        self.commands.append(command)

    def load(self) -> type[CommandGroup]:
        """Import the group. Any thread may call this."""
        module, _, name = self.path.partition(".")
        package = standard_package().__name__
        group: type[CommandGroup] = getattr(import_module(f"{package}.{module}"), name)
        return group


def standard_package() -> ModuleType:
    """The package of the standard groups. Raises ConfigError if it is not installed."""
    try:
        return import_module("qga.commands")
    except ModuleNotFoundError:
        raise ConfigError(
            "the commands of qga are not installed: run `pip install .`, or "
            "`pip install --editable .` to run qga from its source directory"
        ) from None
