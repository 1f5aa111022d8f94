"""Commands, and the groups that define them.

A group is a class, and a command is a method of it decorated with `@command`. The name of the
method with `-` instead of `_` is the name of the command on the wire. The standard commands use
only what a plugin can use. Defining a command twice is an error that names both places.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from types import FunctionType
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, TypeVar, get_args

from qga.errors import PluginError
from qga.loop import SLOW
from qga.plugin import schema
from qga.records import NamedTuple

if TYPE_CHECKING:
    from qga.findings import Finding
    from qga.plugin.services import Services
    from qga.policy.caller import Caller
    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict
    from qga.settings.config import Config

    Judge = Callable[[Policy, dict[str, Any]], Verdict]
    """Returns the verdict of a policy on the arguments of a handler, by their names in Python."""

Access = Literal["audit", "filesystem", "file-read", "file-write", "unrestricted"]
"""The lowest profile that permits a command, named as in Proxmox VE."""

INJECTED = frozenset({"caller", "may_wait"})
"""Parameters of handlers that do not come from the request."""

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Traits(NamedTuple):
    """The arguments of `@command`."""

    access: Access
    blocking: Optional[bool]
    frozen: bool
    success_response: bool
    delimited: bool
    overtakes: bool
    timed: bool
    available: Optional[Callable[[], bool]]
    changes: bool
    continues: str
    secret: tuple[str, ...]
    verdict: Optional[Judge]
    like: tuple[str, ...]


def command(
    *,
    access: Access = "unrestricted",
    blocking: bool | None = None,
    frozen: bool = False,
    success_response: bool = True,
    delimited: bool = False,
    overtakes: bool = False,
    timed: bool = True,
    available: Callable[[], bool] | None = None,
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
    available: returns whether this guest can offer the command; otherwise it is not registered.
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
    if access not in get_args(Access):
        words = ", ".join(get_args(Access))
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


class Command:
    """A command of one agent, ready to be called."""

    def __init__(
        self, name: str, handler: Callable[..., Any], traits: Traits, plugin: bool = False
    ) -> None:
        self.name = name
        self.access = traits.access
        self.blocking = plugin if traits.blocking is None else traits.blocking
        self.frozen = traits.frozen
        self.success_response = traits.success_response
        self.delimited = traits.delimited
        self.overtakes = traits.overtakes
        self.timed = traits.timed
        self.changes = traits.changes
        self.continues = traits.continues
        self.secret = traits.secret
        self.like = traits.like
        self._function = function_of(handler)
        self.group: CommandGroup = handler.__self__  # type: ignore[attr-defined]
        code = self._function.__code__
        injected = _keyword_only(self._function)
        self.wants_caller = takes_caller(self._function)
        self.handler, self.at_once = _ways_to_call(handler, self.blocking, "may_wait" in injected)
        if plugin and self.at_once is not _belongs_on_a_worker:
            self.at_once = _watched(self.at_once, f"{name} ({self.place})", handler)
        self.simple = code.co_argcount + code.co_kwonlyargcount == 1

    @cached_property
    def signature(self) -> schema.Signature:
        """Arguments and result, derived from the handler at first use."""
        return schema.signature(self._function, INJECTED)

    @cached_property
    def carries_number(self) -> bool:
        """Whether its result may contain floats, which are written differently on the wire."""
        return schema.carries_number(self.signature.returns)

    @property
    def place(self) -> str:
        """File and line of the handler."""
        code = self._function.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    def bind(self, given: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Keyword arguments for the handler. Raises QgaError if `given` does not match."""
        # Building a signature is slow; commands without arguments, such as guest-ping, need none.
        if self.simple and not given:
            return given
        bound = self.signature.bind(given)
        if self.wants_caller:
            bound["caller"] = caller
        return bound


def _ways_to_call(
    handler: Callable[..., Any], blocking: bool, tried: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """How to call a handler on a worker, and on the loop."""
    if not tried:
        return handler, _belongs_on_a_worker if blocking else handler
    from functools import partial

    return partial(handler, may_wait=True), partial(handler, may_wait=False)


def _watched(
    call: Callable[..., Any], name: str, handler: Callable[..., Any]
) -> Callable[..., Any]:
    """The same handler, logging calls that take too long. Tests do that for our own."""

    def watched(**arguments: Any) -> Any:
        since = time.monotonic()
        try:
            return call(**arguments)
        finally:
            seconds = time.monotonic() - since
            if seconds > SLOW:
                handler.__self__.agent.report_slow(name, seconds)  # type: ignore[attr-defined]

    return watched


def _belongs_on_a_worker(**_arguments: Any) -> Any:
    raise BlockingIOError


def takes_caller(function: FunctionType) -> bool:
    """Whether a handler is given its caller."""
    return "caller" in _keyword_only(function)


def _keyword_only(function: FunctionType) -> tuple[str, ...]:
    code = function.__code__
    # co_varnames has these parameters after the positional ones.
    return code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]


def function_of(handler: Callable[..., Any]) -> FunctionType:
    """The function of a bound method."""
    return handler.__func__  # type: ignore[attr-defined,no-any-return]


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
            if traits.available is not None and not traits.available():
                continue
            entry = Command(name, getattr(group, attribute), traits, plugin)
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
