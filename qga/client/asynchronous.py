"""Turns blocking methods of qga.client into coroutines with the same types.

Every call in progress has a thread of its own. So the loop never waits, neither for a guest nor for
a disk of this host, and there is one implementation of each method. A cancelled task interrupts its
thread (see qga.client.waits). CancelledError is raised when the thread has ended and has cleaned up
what it had begun in the guest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, suppress
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from qga.client.errors import AgentError
from qga.client.threads import beside
from qga.client.waits import Interrupt, undisturbed

if TYPE_CHECKING:
    from typing import Concatenate, ParamSpec

    P = ParamSpec("P")

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
T = TypeVar("T")
V = TypeVar("V")


class Asynchronous(Generic[S_co]):
    """An object whose methods are those of a blocking one."""

    def __init__(self, blocking: S_co) -> None:
        self._blocking = blocking


def awaited(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[Asynchronous[S], P], Coroutine[Any, Any, T]]:
    """A coroutine method."""

    @wraps(method)
    async def call(self: Asynchronous[S], /, *args: P.args, **keywords: P.kwargs) -> T:
        return await run(partial(method, self._blocking, *args, **keywords))

    return call


def obtained(
    method: Callable[Concatenate[S, P], T], undo: Callable[[Any, T], object]
) -> Callable[Concatenate[Asynchronous[S], P], Coroutine[Any, Any, T]]:
    """A coroutine method for something to be closed. undo: closes it if nobody receives it."""

    @wraps(method)
    async def call(self: Asynchronous[S], /, *args: P.args, **keywords: P.kwargs) -> T:
        blocking = self._blocking
        return await run(partial(method, blocking, *args, **keywords), partial(undo, blocking))

    return call


def entered(
    method: Callable[Concatenate[S, P], AbstractContextManager[T]], shown: Callable[[T], V]
) -> Callable[Concatenate[Asynchronous[S], P], Entered[T, V]]:
    """A method for `async with`. shown: makes what `as` gets of what the blocking one gets."""

    @wraps(method)
    def call(self: Asynchronous[S], /, *args: P.args, **keywords: P.kwargs) -> Entered[T, V]:
        return Entered(partial(method, self._blocking, *args, **keywords), shown)

    return call


def iterated(
    method: Callable[Concatenate[S, P], Generator[T, None, None]],
) -> Callable[Concatenate[Asynchronous[S], P], AsyncGenerator[T, None]]:
    """A method for `async for`."""

    @wraps(method)
    async def call(
        self: Asynchronous[S], /, *args: P.args, **keywords: P.kwargs
    ) -> AsyncGenerator[T, None]:
        items = method(self._blocking, *args, **keywords)
        end = object()
        try:
            while (item := await run(partial(next, items, end))) is not end:
                yield item
        finally:
            await run(ending(items.close))

    return call


class Entered(Generic[T, V]):
    """A context manager whose entering and leaving are carried out on threads."""

    def __init__(
        self, make: Callable[[], AbstractContextManager[T]], shown: Callable[[T], V]
    ) -> None:
        self._make = make
        self._shown = shown

    async def __aenter__(self) -> V:
        self._context, value = await run(self._enter, leave)
        return self._shown(value)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await run(ending(partial(self._context.__exit__, kind, error, traceback)))

    def _enter(self) -> tuple[AbstractContextManager[T], T]:
        context = self._make()
        return context, context.__enter__()


def leave(entered: tuple[AbstractContextManager[T], T]) -> None:
    entered[0].__exit__(None, None, None)


def ending(call: Callable[[], T]) -> Callable[[], T]:
    """A call that ends or closes something, and is not interrupted."""

    def undisturbed_call() -> T:
        with undisturbed():
            return call()

    return undisturbed_call


async def run(call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """What a blocking call returns or raises, on a thread.

    undo: called with a result that came when this was cancelled already.
    """
    cancelled: asyncio.CancelledError | None = None
    with Interrupt() as interrupt:
        outcome = asyncio.wrap_future(beside(partial(interrupt.carry_out, call)))
        while not outcome.done():
            try:
                await asyncio.wait([outcome])
            except asyncio.CancelledError as error:
                cancelled = error
                interrupt.ask()
    if cancelled is None:
        return outcome.result()
    if outcome.exception() is None and undo is not None:
        with suppress(AgentError):
            await run(ending(partial(undo, outcome.result())))
    raise cancelled
