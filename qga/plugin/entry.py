"""A command of one agent, as the registry has it."""

from __future__ import annotations

import time

from qga.loop import SLOW
from qga.plugin.signature import plain
from qga.stdlib import cached_property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FunctionType
    from typing import Any, Callable

    from qga.plugin.deferred import Deferred
    from qga.plugin.registry import CommandGroup, Traits
    from qga.plugin.signature import Signature
    from qga.policy.caller import Caller

INJECTED = frozenset({"caller", "may_wait"})
"""Parameters of handlers that do not come from the request."""


class Command:
    """A command of one agent, ready to be called."""

    def __init__(
        self,
        name: str,
        traits: Traits,
        handler: Callable[..., Any] | None = None,
        plugin: bool = False,
    ) -> None:
        self.name = name
        self.plugin = plugin
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
        if traits.floats is not None:
            self.carries_number = traits.floats
        self.deferred: Deferred | None = None
        """What has to be completed before it can be called."""
        if handler is not None:
            self.attach(handler)

    def attach(self, handler: Callable[..., Any]) -> None:
        """Make it ready to be called."""
        self.deferred = None
        self._function = function_of(handler)
        self.group: CommandGroup = handler.__self__  # type: ignore[attr-defined]
        code = self._function.__code__
        injected = _keyword_only(self._function)
        self.wants_caller = takes_caller(self._function)
        self.handler, self.at_once = _ways_to_call(handler, self.blocking, "may_wait" in injected)
        if self.plugin and self.at_once is not None:
            self.at_once = _watched(self.at_once, f"{self.name} ({self.place})", handler)
        self.takes_nothing = code.co_argcount == 1 and INJECTED.issuperset(injected)

    @property
    def is_simple(self) -> bool:
        """Whether it only reads, never waits, needs no arguments, and always has a reply."""
        if self.deferred is not None or self.plugin or self.blocking or self.changes:
            return False
        return self.takes_nothing and self.success_response and not self.delimited

    @cached_property
    def signature(self) -> Signature:
        """Arguments and result, derived from the handler at first use."""
        return plain(self._function, INJECTED) or _read(self._function)

    @cached_property
    def carries_number(self) -> bool:
        """Whether its result may contain floats, which are written differently on the wire."""
        from qga.plugin import schema

        return schema.carries_number(self.signature.returns)

    @property
    def place(self) -> str:
        """File and line of the handler. Imports its group."""
        function = self._function
        if self.deferred is not None:
            function = getattr(self.deferred.load(), self.name.replace("-", "_"))
        code = function.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    def bind(self, given: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Keyword arguments for the handler. Raises QgaError if `given` does not match."""
        # Building a signature is slow; commands without arguments, such as guest-ping, need none.
        if self.takes_nothing and not given:
            return {"caller": caller} if self.wants_caller else given
        bound = self.signature.bind(given)
        if self.wants_caller:
            bound["caller"] = caller
        return bound


def _read(function: FunctionType) -> Signature:
    from qga.plugin import schema

    return schema.signature(function, INJECTED)


def _ways_to_call(
    handler: Callable[..., Any], blocking: bool, tried: bool
) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """How to call a handler on a worker, and on the loop; None if it belongs on a worker."""
    if not tried:
        return handler, None if blocking else handler
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
