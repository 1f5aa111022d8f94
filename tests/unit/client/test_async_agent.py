"""AsyncGuestAgent: the same methods, and what becomes of a request whose task is cancelled."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

import qga.client
from qga.client import (
    AgentTimeout,
    AsyncGuestAgent,
    CommandError,
    ConnectError,
    ExecResult,
    Frozen,
    GuestAgent,
    GuestTunnel,
    OSInfo,
    StreamedProgram,
    TextResult,
    User,
    copy_from,
    copy_to,
    start_streamed,
    waits,
)
from qga.client.async_agent import AsyncEvents, AsyncFrozen, AsyncProgram, AsyncTunnel
from qga.client.watching import Events
from tests.cancelling import cancelled
from tests.unit.client_peer import LATE, Filesystems, Handler, Start

if TYPE_CHECKING:
    from typing_extensions import assert_type

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "copy_from": copy_from,
    "copy_to": copy_to,
    "start_streamed": start_streamed,
}
PROMPT = 2.0


async def types(guest: AsyncGuestAgent) -> None:
    """Never called: mypy compares the types with those of the blocking methods."""
    assert_type(await guest.osinfo(), OSInfo)
    assert_type(await guest.users(), list[User])
    assert_type(await guest.exec(["true"]), ExecResult)
    assert_type(await guest.exec(["true"], text=True), TextResult)
    assert_type(await guest.read_file("/etc/hosts", limit=100), bytes)
    async with guest.opened("/etc/hosts") as handle:
        assert_type(handle, int)
    async for piece in guest.file_read_all(1):
        assert_type(piece, bytes)
    async with guest.freeze(timeout=1) as frozen:
        assert_type(await frozen.thaw(), int)
    async with guest.watch("oom") as events:
        async for event in events:
            assert_type(event.name, str)


def methods_of(kind: type) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(kind, callable)
    return {name: method for name, method in found if not name.startswith("_")}


def test_each_method_is_that_of_the_same_name() -> None:
    blocking = {**methods_of(GuestAgent), **FUNCTIONS}
    shared = methods_of(AsyncGuestAgent)
    assert set(shared) == set(blocking)
    for name, method in shared.items():
        assert inspect.unwrap(method) is inspect.unwrap(blocking[name])


@pytest.mark.parametrize(
    ("kind", "blocking"),
    [
        (AsyncProgram, StreamedProgram),
        (AsyncEvents, Events),
        (AsyncFrozen, Frozen),
        (AsyncTunnel, GuestTunnel),
    ],
)
def test_so_is_each_method_of_what_it_returns(kind: type, blocking: type) -> None:
    for name, method in methods_of(kind).items():
        assert inspect.unwrap(method) is getattr(blocking, name)


def test_who_does_not_use_it_does_not_import_asyncio() -> None:
    script = "import sys, qga.client; print('asyncio' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script]) == b"False\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'AsyncAgent'"):
        _ = qga.client.AsyncAgent


def run(
    start: Start, handlers: dict[str, Handler], work: Callable[[Any, Any], Awaitable[None]]
) -> Any:
    """Carry out `work` with an agent for a peer with these handlers; returns the peer."""
    peer = start(handlers)

    async def connected() -> None:
        async with AsyncGuestAgent(peer.address) as guest:
            await work(guest, peer)

    asyncio.run(connected())
    return peer


def asked(peer: Any, command: str) -> list[dict[str, Any]]:
    """The arguments of the requests for a command."""
    return [
        request.get("arguments", {}) for request in peer.requests if request["execute"] == command
    ]


def test_the_loop_goes_on_while_a_guest_takes_its_time(start: Start) -> None:
    released = threading.Event()
    handlers: dict[str, Handler] = {"guest-get-time": lambda _: released.wait(10) and 5}

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        reply = asyncio.ensure_future(guest.time())
        for _step in range(10):
            await asyncio.sleep(0.001)
        assert not reply.done()
        released.set()
        assert await reply == 5

    run(start, handlers, work)


def test_a_cancelled_request_does_not_hand_its_reply_to_the_next(start: Start) -> None:
    handlers: dict[str, Handler] = {
        "guest-get-host-name": lambda _: LATE,
        "guest-get-time": lambda _: 5,
    }

    async def work(guest: AsyncGuestAgent, peer: Any) -> None:
        seconds = await cancelled(
            guest.hostname(), lambda: asked(peer, "guest-get-host-name") != []
        )
        assert seconds < PROMPT
        assert await guest.time() == 5  # the late reply has come before it

    assert run(start, handlers, work).syncs == 2


def test_tasks_share_one_agent(start: Start) -> None:
    handlers: dict[str, Handler] = {"guest-sync": lambda arguments: arguments["id"]}

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        numbers = range(50)
        assert await asyncio.gather(*map(guest.echo, numbers)) == list(numbers)

    run(start, handlers, work)


def test_who_waits_for_another_task_is_cancelled_at_once(start: Start) -> None:
    released = threading.Event()
    handlers: dict[str, Handler] = {"guest-get-time": lambda _: released.wait(10) and 5}

    async def work(guest: AsyncGuestAgent, peer: Any) -> None:
        first = asyncio.ensure_future(guest.time())
        second = guest.hostname()
        assert await cancelled(second, lambda: asked(peer, "guest-get-time") != []) < PROMPT
        released.set()
        assert await first == 5

    assert asked(run(start, handlers, work), "guest-get-host-name") == []


class Work:
    """What an agent needs long for: until the task was cancelled that asked for it."""

    def __init__(self) -> None:
        self.begun, self.cancelled = threading.Event(), threading.Event()

    def take_long(self) -> None:
        self.begun.set()
        assert self.cancelled.wait(30)


class Handles:
    """An agent that opens files slowly."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.opening = Work()

    @property
    def handlers(self) -> dict[str, Handler]:
        return {"guest-file-open": self._open, "guest-file-close": self._close}

    def _open(self, _: object) -> int:
        self.opening.take_long()
        self.open.add(7)
        return 7

    def _close(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.open.remove(arguments["handle"])
        return {}


@pytest.mark.parametrize("kind", ["opened", "file_open"])
def test_a_file_that_was_opened_for_a_cancelled_task_is_closed(start: Start, kind: str) -> None:
    handles = Handles()

    async def entered(guest: AsyncGuestAgent) -> None:
        async with guest.opened("/etc/hosts"):
            raise AssertionError("entered")

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        call = entered(guest) if kind == "opened" else guest.file_open("/etc/hosts")
        opening = handles.opening
        assert await cancelled(call, opening.begun.is_set, opening.cancelled.set) < PROMPT
        assert not handles.open

    assert asked(run(start, handles.handlers, work), "guest-file-close") == [{"handle": 7}]


def test_leaving_a_context_is_not_interrupted(start: Start) -> None:
    disk, thawing = Filesystems(), Work()

    def thaw(arguments: dict[str, Any]) -> Any:
        thawing.take_long()
        return disk.thaw(arguments)

    async def frozen(guest: AsyncGuestAgent) -> None:
        async with guest.freeze() as frozen:
            assert (frozen.count, disk.frozen) == (2, 2)

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        await cancelled(frozen(guest), thawing.begun.is_set, thawing.cancelled.set)
        assert disk.frozen == 0

    run(start, {**disk.handlers, "guest-fsfreeze-thaw": thaw}, work)


def test_a_freeze_is_thawed_even_if_it_was_cancelled_before_its_reply(start: Start) -> None:
    disk, freezing = Filesystems(), Work()

    def freeze(arguments: dict[str, Any]) -> Any:
        freezing.take_long()
        return disk.freeze(arguments)

    async def frozen(guest: AsyncGuestAgent) -> None:
        async with guest.freeze():
            raise AssertionError("entered")

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        await cancelled(frozen(guest), freezing.begun.is_set, freezing.cancelled.set)
        assert disk.frozen == 0

    run(start, {**disk.handlers, "guest-fsfreeze-freeze": freeze}, work)


class Programs:
    """An agent whose programs run until they are killed."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.signals: list[str] = []
        self.waited_for = threading.Event()

    @property
    def handlers(self) -> dict[str, Handler]:
        return {"guest-exec": self._exec, "guest-exec-status": self._status}

    def _exec(self, arguments: dict[str, Any]) -> Any:
        words = arguments["arg"]
        if len(words) > 1 and "kill -s" in words[1]:
            self.signals.append(words[3])
            self.running -= set(map(int, words[4:]))
            return {"pid": 1}
        time.sleep(0.1)
        self.running.add(8)
        return {"pid": 8}

    def _status(self, arguments: dict[str, Any]) -> Any:
        self.waited_for.set()
        if arguments["pid"] in self.running:
            return {"exited": False}
        return {"exited": True, "exitcode": 0, "out-data": ""}


@pytest.mark.parametrize("when", ["before its reply", "while it runs"])
def test_a_program_ends_with_its_task(start: Start, when: str) -> None:
    programs = Programs()

    async def work(guest: AsyncGuestAgent, peer: Any) -> None:
        ready = programs.waited_for.is_set
        if when == "before its reply":
            ready = lambda: asked(peer, "guest-exec") != []  # noqa: E731 - of the same type
        assert await cancelled(guest.exec(["sleep", "60"]), ready) < PROMPT
        assert (programs.running, programs.signals) == (set(), ["KILL"])

    run(start, programs.handlers, work)


def test_cancelling_again_does_not_stop_what_ends_the_program(start: Start) -> None:
    programs = Programs()

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        task = asyncio.ensure_future(guest.exec(["sleep", "60"]))
        while not programs.waited_for.is_set():
            await asyncio.sleep(0.005)
        for _again in range(20):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert programs.running == set()

    run(start, programs.handlers, work)


def test_a_guest_that_falls_silent_does_not_hold_a_cancelled_task(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "LAST_PATIENCE", 0.1)
    programs = Programs()

    async def work(guest: AsyncGuestAgent, peer: Any) -> None:
        task = asyncio.ensure_future(guest.exec(["sleep", "60"]))
        while not programs.waited_for.is_set():
            await asyncio.sleep(0.005)
        peer.deaf = True
        assert await cancelled(guest.exec(["sleep", "60"]), lambda: peer.deaf) < PROMPT
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < PROMPT

    run(start, programs.handlers, work)


def test_errors_are_those_of_the_method(start: Start) -> None:
    handlers: dict[str, Handler] = {"guest-get-time": lambda _: Exception("GenericError", "no")}

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        with pytest.raises(CommandError, match="guest-get-time: no"):
            await guest.time()
        with pytest.raises(TypeError, match="unexpected keyword"):
            await guest.time(wrong=1)  # type: ignore[call-arg]

    run(start, handlers, work)


def test_an_agent_that_is_not_there_or_silent(start: Start) -> None:
    peer = start({})
    peer.deaf = True

    async def connect(address: str) -> None:
        async with AsyncGuestAgent(address, 0.1):
            raise AssertionError("entered")

    with pytest.raises(AgentTimeout, match="did not respond at all"):
        asyncio.run(connect(peer.address))
    with pytest.raises(ConnectError, match="is the guest running"):
        asyncio.run(connect("unix:/nonexistent/socket"))
    with pytest.raises(ValueError, match="is not the address of an agent"):
        asyncio.run(connect("nonsense:1"))


def test_cancelled_while_it_connects(start: Start) -> None:
    peer = start({})
    peer.deaf = True

    async def connect() -> None:
        async with AsyncGuestAgent(peer.address, 60):
            raise AssertionError("entered")

    async def work() -> None:
        began = time.monotonic()
        assert await cancelled(connect(), lambda: time.monotonic() - began > 0.1) < PROMPT

    asyncio.run(work())


def test_pieces_of_a_file_and_a_reader_that_stops(start: Start) -> None:
    handlers: dict[str, Handler] = {
        "guest-file-read": lambda _: {"count": 4, "buf-b64": "dGV4dA==", "eof": False},
        "guest-get-time": lambda _: 5,
        "qga-get-version": lambda _: {},
    }

    async def work(guest: AsyncGuestAgent, _: object) -> None:
        pieces = guest.file_read_all(1, 4)
        assert [await pieces.__anext__() for _step in range(3)] == [b"text"] * 3
        await pieces.aclose()
        assert await guest.time() == 5

    run(start, handlers, work)
