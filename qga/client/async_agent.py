"""AsyncGuestAgent: the methods of GuestAgent for asyncio.

Each line names the method of GuestAgent that it wraps, with the same types.
tests/unit/client/test_async_agent.py checks that the names are the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, TypeVar

from qga.client.agent import GuestAgent
from qga.client.asynchronous import Asynchronous, awaited, ending, entered, iterated, obtained, run
from qga.client.commands.freeze import Frozen
from qga.client.copies import copying
from qga.client.hosts.discovery import FoundGuest
from qga.client.programs import RunningProgram, StreamedProgram, start_streamed
from qga.client.results import ExecResult, StartedProgram
from qga.client.threads import beside
from qga.client.tunnels import GuestSocket, GuestTunnel
from qga.client.watching import Event, Events, WatchStarted
from qga.client.wire import DEFAULT_MAX_REPLY

if TYPE_CHECKING:
    from typing import ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")
Self = TypeVar("Self", bound="AsyncGuestAgent")


def same(value: T) -> T:
    return value


def close_socket(_: object, connected: GuestSocket) -> None:
    connected.close()


def closed_beside(connect: Callable[P, GuestSocket]) -> Callable[P, GuestSocket]:
    """Makes sockets whose tunnel is closed on a thread: it waits until the guest has everything."""

    @wraps(connect)
    def call(*args: P.args, **keywords: P.kwargs) -> GuestSocket:
        connected = connect(*args, **keywords)
        if connected.close_with is not None:
            connected.close_with = partial(beside, connected.close_with)
        return connected

    return call


def kill_plain(agent: GuestAgent, pid: int) -> None:
    RunningProgram(agent, pid).close()


def kill_streamed(agent: GuestAgent, started: StartedProgram) -> None:
    agent.stream_signal(started.pid, "KILL")


class AsyncProgram(Asynchronous[StreamedProgram]):
    """A running program, as StreamedProgram."""

    @property
    def pid(self) -> int:
        return self._blocking.pid

    @property
    def exited(self) -> bool:
        return self._blocking.exited

    @property
    def result(self) -> ExecResult | None:
        """Its result, once it has exited and all of its output has arrived."""
        return self._blocking.result

    poll = awaited(StreamedProgram.poll)
    receive = awaited(StreamedProgram.receive)
    write = awaited(StreamedProgram.write)
    end_input = awaited(StreamedProgram.end_input)
    signal = awaited(StreamedProgram.signal)
    resize = awaited(StreamedProgram.resize)
    terminate = awaited(StreamedProgram.terminate)


class AsyncEvents(Asynchronous[Events]):
    """The events of a guest, as Events: iterate over it with `async for`."""

    @property
    def started(self) -> WatchStarted:
        """The agent's reply to the last start."""
        return self._blocking.started

    next = awaited(Events.next)

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        while True:
            event = await self.next()
            if event is not None:
                yield event


class AsyncFrozen(Asynchronous[Frozen]):
    """Filesystems that were frozen, as Frozen."""

    @property
    def count(self) -> int:
        return self._blocking.count

    @property
    def thawed(self) -> int | None:
        """How many were thawed; None until then."""
        return self._blocking.thawed

    thaw = awaited(Frozen.thaw)


class AsyncTunnel(Asynchronous[GuestTunnel]):
    """A tunnel, as GuestTunnel."""

    connect = obtained(GuestTunnel.connect, close_socket)


class AsyncGuestAgent(Asynchronous[GuestAgent]):
    """The agent at `address` for asyncio; the arguments are those of GuestAgent.

        async with AsyncGuestAgent("web") as guest:
            await guest.hostname()
            async with guest.freeze() as frozen:
                print(frozen.count)

    Tasks may share it; requests to one guest are carried out one after another. Cancelling a task
    ends the program, closes the file or thaws the filesystems of its call before CancelledError is
    raised. Functions that are passed (`report`, `moved`, an Observer) are called on other threads.
    """

    def __init__(
        self,
        address: str | FoundGuest,
        timeout: float = 5.0,
        *,
        max_reply: int = DEFAULT_MAX_REPLY,
    ) -> None:
        super().__init__(GuestAgent(address, timeout, max_reply=max_reply))

    async def __aenter__(self: Self) -> Self:
        await run(self._blocking.__enter__, GuestAgent.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await run(ending(self._blocking.close))

    @property
    def address(self) -> str:
        return self._blocking.address

    @property
    def timeout(self) -> float:
        """Seconds that a call waits for its reply by default."""
        return self._blocking.timeout

    close = awaited(GuestAgent.close)
    call = awaited(GuestAgent.call)
    order = awaited(GuestAgent.order)
    sync = awaited(GuestAgent.sync)
    max_data = awaited(GuestAgent.max_data)
    max_output = awaited(GuestAgent.max_output)

    ping = awaited(GuestAgent.ping)
    echo = awaited(GuestAgent.echo)
    info = awaited(GuestAgent.info)
    release = awaited(GuestAgent.release)

    osinfo = awaited(GuestAgent.osinfo)
    hostname = awaited(GuestAgent.hostname)
    time = awaited(GuestAgent.time)
    time_ahead = awaited(GuestAgent.time_ahead)
    set_time = awaited(GuestAgent.set_time)
    timezone = awaited(GuestAgent.timezone)
    users = awaited(GuestAgent.users)
    set_password = awaited(GuestAgent.set_password)

    resync = awaited(GuestAgent.resync)
    set_identity = awaited(GuestAgent.set_identity)

    ssh_keys = awaited(GuestAgent.ssh_keys)
    add_ssh_keys = awaited(GuestAgent.add_ssh_keys)
    remove_ssh_keys = awaited(GuestAgent.remove_ssh_keys)

    exec = awaited(GuestAgent.exec)
    exec_start = obtained(GuestAgent.exec_start, kill_plain)
    exec_status = awaited(GuestAgent.exec_status)
    exec_wait = awaited(GuestAgent.exec_wait)

    start_streamed = entered(start_streamed, AsyncProgram)
    stream_start = obtained(GuestAgent.stream_start, kill_streamed)
    stream_read = awaited(GuestAgent.stream_read)
    stream_write = awaited(GuestAgent.stream_write)
    stream_end = awaited(GuestAgent.stream_end)
    stream_signal = awaited(GuestAgent.stream_signal)
    stream_resize = awaited(GuestAgent.stream_resize)

    copy_to = awaited(copying.copy_to)
    copy_from = awaited(copying.copy_from)
    read_file = awaited(GuestAgent.read_file)
    write_file = awaited(GuestAgent.write_file)
    opened = entered(GuestAgent.opened, same)
    file_open = obtained(GuestAgent.file_open, GuestAgent.file_close)
    file_close = awaited(GuestAgent.file_close)
    file_read = awaited(GuestAgent.file_read)
    file_read_all = iterated(GuestAgent.file_read_all)
    file_write = awaited(GuestAgent.file_write)
    file_write_all = awaited(GuestAgent.file_write_all)
    file_seek = awaited(GuestAgent.file_seek)
    file_flush = awaited(GuestAgent.file_flush)
    file_send = awaited(GuestAgent.file_send)
    file_receive = awaited(GuestAgent.file_receive)
    file_checksum = awaited(GuestAgent.file_checksum)

    disks = awaited(GuestAgent.disks)
    disk_stats = awaited(GuestAgent.disk_stats)
    filesystems = awaited(GuestAgent.filesystems)
    trim = awaited(GuestAgent.trim)
    grow_filesystem = awaited(GuestAgent.grow_filesystem)
    snapshot = awaited(GuestAgent.snapshot)

    freeze = entered(GuestAgent.freeze, AsyncFrozen)
    thaw = awaited(GuestAgent.thaw)
    freeze_status = awaited(GuestAgent.freeze_status)
    freeze_state = awaited(GuestAgent.freeze_state)

    interfaces = awaited(GuestAgent.interfaces)
    routes = awaited(GuestAgent.routes)
    processors = awaited(GuestAgent.processors)
    set_processors = awaited(GuestAgent.set_processors)
    processor_times = awaited(GuestAgent.processor_times)
    load = awaited(GuestAgent.load)

    memory = awaited(GuestAgent.memory)
    memory_blocks = awaited(GuestAgent.memory_blocks)
    memory_block_size = awaited(GuestAgent.memory_block_size)
    set_memory_blocks = awaited(GuestAgent.set_memory_blocks)
    metrics = awaited(GuestAgent.metrics)

    readiness = awaited(GuestAgent.readiness)
    wait_for = awaited(GuestAgent.wait_for)
    watch = entered(GuestAgent.watch, AsyncEvents)
    watch_start = awaited(GuestAgent.watch_start)

    ports = awaited(GuestAgent.ports)
    open_vsock_port = awaited(GuestAgent.open_vsock_port)
    connect = obtained(closed_beside(GuestAgent.connect), close_socket)
    connect_unix = obtained(closed_beside(GuestAgent.connect_unix), close_socket)
    tunnel = entered(GuestAgent.tunnel, AsyncTunnel)
    tunnel_open = obtained(GuestAgent.tunnel_open, GuestAgent.tunnel_close)
    tunnel_connect = awaited(GuestAgent.tunnel_connect)
    tunnel_exchange = awaited(GuestAgent.tunnel_exchange)
    tunnel_close = awaited(GuestAgent.tunnel_close)

    shutdown = awaited(GuestAgent.shutdown)
    suspend = awaited(GuestAgent.suspend)
