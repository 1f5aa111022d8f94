"""Commands, and the groups that define them.

A group is a class, and a command is a method of it decorated with `@command`. The name of the
method with `-` instead of `_` is the name of the command on the wire. The standard commands use
only what a plugin can use. Defining a command twice is an error that names both places.
"""

from __future__ import annotations

import os

from qga.errors import PluginError
from qga.plugin.deferred import Deferred
from qga.plugin.entry import Command
from qga.records import NamedTuple
from qga.settings.values import PROFILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Callable, Literal, Optional, TypeVar

    from qga.findings import Finding
    from qga.plugin.services import Services
    from qga.policy.caller import Caller
    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict
    from qga.settings.config import Config

    Access = Literal["audit", "filesystem", "file-read", "file-write", "unrestricted"]
    """The lowest profile that permits a command, named as in Proxmox VE."""

    Judge = Callable[[Policy, dict[str, Any]], Verdict]
    """Returns the verdict of a policy on the arguments of a handler, by their names in Python."""

    _Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Traits(NamedTuple):
    """The arguments of `@command`."""

    access: Access
    blocking: Optional[bool] = None
    frozen: bool = False
    success_response: bool = True
    delimited: bool = False
    overtakes: bool = False
    timed: bool = True
    available: Callable[[], bool] | str | None = None
    changes: bool = False
    continues: str = ""
    secret: tuple[str, ...] = ()
    verdict: Optional[Judge] = None
    like: tuple[str, ...] = ()
    floats: Optional[bool] = None
    """Whether its result may hold floats; None where that was not looked up."""

    @property
    def are_met(self) -> bool:
        """Whether this guest can offer the command."""
        if self.available is None:
            return True
        if isinstance(self.available, str):
            return os.path.exists(self.available)
        return self.available()


def command(
    *,
    access: Access = "unrestricted",
    blocking: bool | None = None,
    frozen: bool = False,
    success_response: bool = True,
    delimited: bool = False,
    overtakes: bool = False,
    timed: bool = True,
    available: Callable[[], bool] | str | None = None,
    changes: bool | None = None,
    continues: str = "",
    secret: tuple[str, ...] = (),
    verdict: Judge | None = None,
    like: tuple[str, ...] = (),
) -> Callable[[_Handler], _Handler]:
    """Make a method of a CommandGroup a command.

    access: the lowest profile that permits it.
    blocking: whether it may wait for a disk, a child or the network. It then runs on a worker
        thread, as commands of plugins do by default. False promises that it never waits, not even
        for a file: it runs on the loop, which serves nobody else meanwhile. A handler with a
        keyword-only parameter `may_wait` is first called on the loop with False, and raises
        BlockingIOError, before it has done anything, if it would have to wait. A handler that
        loops or waits for long calls `qga.stop_if_given_up()` or iterates over
        `qga.until_given_up(items)`.
    frozen: whether it is allowed while filesystems are frozen.
    success_response: if False, only errors are answered.
    delimited: whether the byte 0xFF precedes its successful reply.
    overtakes: whether it is answered while an earlier command of the connection hangs. That
        command is then given up.
    timed: whether `command-timeout` applies; False if giving up half-way would do harm.
    available: a path, or a function that returns whether this guest can offer the command. Without
        it the command is not registered.
    changes: whether it changes something in the guest, so that each call is logged. The default is
        False if `access` is audit or file-read, otherwise True.
    continues: the argument that refers to something which an earlier, logged command has opened.
        Of many such calls, the first ones are logged and the others counted.
    secret: names of arguments that are never logged; `NAME=` for a list of `KEY=value`, of which
        only the keys are logged.
    verdict: returns the verdict of the policy on the arguments, for --explain-policy; needed if
        the handler uses `caller.policy`.
    like: equivalent commands: block-rpcs blocks this command if it names one of them, so that a
        list written for QEMU's agent blocks everything that it was meant to block.
    """
    if access not in PROFILES:
        words = ", ".join(PROFILES)
        raise ValueError(f"invalid access '{access}'; use one of {words}")
    if changes is None:
        changes = access not in ("audit", "file-read")
    traits = Traits(
        access,
        blocking,
        frozen,
        success_response,
        delimited,
        overtakes,
        timed,
        available,
        changes,
        continues,
        secret,
        verdict,
        like,
    )

    def mark(handler: _Handler) -> _Handler:
        handler.__qga_command__ = traits  # type: ignore[attr-defined]
        return handler

    return mark


class CommandGroup:
    """Related commands and their state; one object for each Agent.

    `self.agent` gives access to the loop, the configuration and the log. A group may override the
    methods `on_…`, which report what has happened, and `do_…`, which ask for work. Both do nothing
    by default and are called on the loop. The other methods are for the agent to call.

    Plugins that override `start`, `stop` and `diagnose` instead of `on_start`, `on_stop` and
    `do_diagnose` keep working.
    """

    def __init__(self, agent: Services) -> None:
        self.agent = agent

    def start(self) -> None:
        self.on_start()

    def stop(self) -> None:
        self.on_stop()

    @classmethod
    def diagnose(cls, config: Config) -> Iterator[Finding]:
        return cls.do_diagnose(config)

    def on_start(self) -> None:
        """The agent's channels are open."""

    def on_stop(self) -> None:
        """The agent is about to exit."""

    def on_connect(self, caller: Caller) -> None:
        """A connection was made."""

    def on_disconnect(self, caller: Caller) -> None:
        """A connection was closed."""

    def on_client_left(self, caller: Caller) -> None:
        """A client has left: its connection was closed, or the host has left a virtio port, which
        stays connected."""

    def on_freeze(self) -> None:
        """The filesystems are about to be frozen."""

    def on_thaw(self) -> None:
        """The filesystems were thawed."""

    def on_unheard(self, command: str) -> None:
        """A blocking command of the group has succeeded, but no client received the reply."""

    @classmethod
    def do_diagnose(cls, config: Config) -> Iterator[Finding]:
        """Yield findings for --doctor: does the guest have what the group needs? Change nothing."""
        return iter(())


def commands_of(group: type[CommandGroup]) -> Iterator[tuple[str, str, Traits]]:
    """Wire name, attribute and traits of each command of the class, in order of definition."""
    # vars() and not dir(), which sorts: help and guest-info keep the order of the source.
    for owner in reversed(group.__mro__):
        for attribute, value in vars(owner).items():
            traits = getattr(value, "__qga_command__", None)
            if traits is not None:
                yield attribute.replace("_", "-"), attribute, traits


class Registry:
    """The commands of one agent by name, in order of discovery."""

    def __init__(self) -> None:
        self.groups: list[CommandGroup] = []
        self.deferred: list[Deferred] = []
        self._commands: dict[str, Command] = {}
        # Not a method of our own, which would cost every request another call.
        self.get = self._commands.get
        """`get(name)` is the Command, or None."""

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, group: CommandGroup, plugin: bool = False) -> None:
        """Add all commands of a group, or raise PluginError and add none.

        plugin: whether it is not a standard group. Its signatures are then read now, so that an
            error in one is reported at once, and its handlers are blocking by default.
        """
        # Collected first: half a group could not do its work.
        found = {}
        for name, attribute, traits in commands_of(type(group)):
            if not traits.are_met:
                continue
            entry = Command(name, traits, getattr(group, attribute), plugin)
            other = self._commands.get(name)
            if other is not None:
                raise PluginError(
                    f"command {name} is defined twice: in {other.place} and in {entry.place}"
                )
            if plugin:
                _check_signature(entry)
            found[name] = entry
        self._commands.update(found)
        self.groups.append(group)

    def defer(self, groups: dict[str, dict[str, dict[str, Any]]]) -> None:
        """Add the commands of groups that will be imported later; `groups` as in `standard`."""
        for path, commands in groups.items():
            deferred = Deferred(path)
            for name, given in commands.items():
                traits = Traits(**{"floats": False, **given})
                if traits.are_met:
                    self._commands[name] = Command(name, traits)
                    deferred.add(self._commands[name])
            if deferred.commands:
                self.deferred.append(deferred)

    def needed(self, frozen: bool) -> list[Deferred]:
        """The groups, not imported yet, that an agent needs while it is frozen, or at its start."""
        quantity = any if frozen else all
        return [
            group
            for group in self.deferred
            if quantity(command.frozen for command in group.commands)
        ]

    def complete(self, deferred: Deferred, agent: Services) -> None:
        """Make the commands of a group ready to be called. May import the group."""
        if deferred in self.deferred:
            group = deferred.load()(agent)
            for entry in deferred.commands:
                entry.attach(getattr(group, entry.name.replace("-", "_")))
            self.deferred.remove(deferred)
            self.groups.append(group)


def _check_signature(entry: Command) -> None:
    try:
        names = [argument.name for argument in entry.signature.arguments]
    except Exception as error:  # annotations are code of the plugin and can raise anything
        raise PluginError(f"{entry.name} ({entry.place}): {error}") from error
    for mark in entry.secret:
        if mark.rstrip("=") not in names:
            raise PluginError(
                f"{entry.name} ({entry.place}): secret='{mark}' is not an argument; "
                f"its arguments: {', '.join(names) or 'none'}"
            )


def command_names(groups: list[type[CommandGroup]]) -> list[str]:
    """The names of all commands of these groups."""
    return [name for group in groups for name, _, _ in commands_of(group)]
