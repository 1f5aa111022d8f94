"""A watch: what happens in the guest, as lines of JSON on a data port.

Nothing runs while nothing happens: each source is a descriptor of the kernel on the loop. Lines
that the host has not taken wait in a queue of bounded size. What does not fit is counted, and once
the host has caught up, a line says how many events were dropped. Nothing here touches a disk, so a
watch continues while filesystems are frozen.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import TYPE_CHECKING

from ._address_events import Addresses
from ._memory_events import KernelLog, Kills, Pressure
from ._mount_events import Mounts, Usage
from ._session_events import Sessions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Callable, Protocol

    from qga.loop import Loop
    from qga.ports import PortFile

    class Source(Protocol):
        """Where events come from, once it is watched."""

        def watch(self, loop: Loop) -> None: ...

        def close(self) -> None: ...


MAX_QUEUED = 256 * 1024
"""Bytes of lines that wait for the host."""

_WRITE_SIZE = 32 * 1024  # all that a port takes
_TURN = 16  # writes before others have their turn
# RDHUP: by vsock; a host that reads events has nothing to send.
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_EDGES = select.EPOLLOUT | _GONE | select.EPOLLET


class Queue:
    """Lines that wait for the host.

    data: their bytes; beyond `most` whole lines are dropped and counted, until half is taken.
    """

    def __init__(self, most: int = MAX_QUEUED) -> None:
        self.data = bytearray()
        self.dropped = 0
        self._missed: set[str] = set()  # kinds, by dropped lines
        self._most = most

    def put(self, event: dict[str, Any]) -> None:
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        # Once one is dropped those after it are as well, so that the count is in its place.
        if self.dropped or len(self.data) + len(line) > self._most:
            self.dropped += 1
            if event["event"] == "missed":
                self._missed.add(event["kind"])
        else:
            self.data += line

    def take(self, count: int) -> None:
        """Forget that many bytes, which the host has."""
        del self.data[:count]
        if self.dropped and len(self.data) <= self._most // 2:
            members: dict[str, Any] = {"count": self.dropped}
            if self._missed:
                members["missed"] = sorted(self._missed)
            self.dropped, self._missed = 0, set()
            self.put(stamped("dropped", **members))


class Watch:
    """Opened by the constructor, which may block; to be followed with `start`.

    kinds: what is to be told, of those of qga-watch. submit: runs a function on a worker.
    number: of this watch. unavailable: why some of the kinds, or a part of one, cannot be told.
    """

    def __init__(
        self,
        port: PortFile,
        kinds: Sequence[str],
        usage: tuple[int, int],
        submit: Callable[..., object],
    ) -> None:
        self.number = time.time_ns()
        self.unavailable: list[tuple[str, str]] = []
        self.closed = False
        self._port = port
        self._kinds = kinds
        self._queue = Queue()
        self._sources: list[Source] = []
        self._flush_is_due = False
        self._open("address", lambda: Addresses(self.tell))
        self._open("pressure", lambda: Pressure(self.tell))
        self._open("session", lambda: Sessions(self.tell))
        self._open("usage", lambda: Usage(self.tell, *usage, submit))
        mounts = self._open("mount", lambda: Mounts(self.tell))
        self._read_log(mounts)

    def start(self, loop: Loop, on_closed: Callable[[], None], **greeting: Any) -> None:
        """Follow everything on the loop. The first line has the `greeting`.

        on_closed: called when it is over, because the host has left or the agent stops.
        """
        self._loop = loop
        self._on_closed = on_closed
        loop.watch(self._port.fileno(), self._on_port, _EDGES)
        for source in self._sources:
            source.watch(loop)
        self.tell("watching", watch=self.number, **greeting)

    def tell(self, name: str, /, **members: Any) -> None:
        """Put an event into the queue."""
        self._queue.put(stamped(name, **members))
        if not self._flush_is_due:  # once for all events of a turn
            self._flush_is_due = True
            self._loop.post(self._flush)

    def tell_if_wanted(self, kind: str, name: str) -> None:
        if kind in self._kinds:
            self.tell(name)

    def close(self, *, farewell: str = "") -> None:
        """End it, with a last event if the host takes it at once."""
        if farewell and not self.closed:
            self._queue.put(stamped(farewell))
            self._flush()
        if not self.closed:
            self.closed = True
            self._give_back()

    def _give_back(self) -> None:
        self._loop.unwatch(self._port.fileno())
        for source in self._sources:
            source.close()
        self._port.close()
        self._on_closed()

    def _open(self, kind: str, make: Callable[[], Any]) -> Any:
        if kind not in self._kinds:
            return None
        try:
            source = make()
        except OSError as error:
            self.unavailable.append((kind, _reason(error)))
            return None
        self._sources.append(source)
        return source

    def _read_log(self, mounts: Mounts | None) -> None:
        """Of the kernel, for what only it says: kills, and filesystems that gave up writing."""
        if mounts is None and "oom" not in self._kinds:
            return
        try:
            log = KernelLog(lambda: self._on_log_missed(mounts))
        except OSError as error:
            if "oom" in self._kinds:
                self.unavailable.append(("oom", _reason(error)))
            if mounts is not None:
                reason = f"read-only after an error is not reported: {_reason(error)}"
                self.unavailable.append(("mount", reason))
            return
        self._sources.append(log)
        if mounts is not None:
            log.listeners.append(mounts.on_kernel_line)
        if "oom" in self._kinds:
            log.listeners.append(Kills(self.tell).on_kernel_line)

    def _on_log_missed(self, mounts: Mounts | None) -> None:
        if "oom" in self._kinds:
            self.tell("missed", kind="oom")
        if mounts is not None:
            mounts.look()

    def _on_port(self, events: int) -> None:
        if events & _GONE:
            self.close()
        else:
            self._flush()

    def _flush(self) -> None:
        """Write what waits, as far as the port takes it."""
        self._flush_is_due = False
        queue = self._queue
        try:
            for _ in range(_TURN):
                if self.closed or not queue.data:
                    return
                queue.take(os.write(self._port.fileno(), queue.data[:_WRITE_SIZE]))
        except BlockingIOError:
            return
        except OSError:  # unplugged
            self.close()
            return
        self._flush_is_due = True
        self._loop.post(self._flush)


def stamped(name: str, /, **members: Any) -> dict[str, Any]:
    """An event of this moment."""
    return {"event": name, "time-ms": time.time_ns() // 10**6, **members}


def _reason(error: OSError) -> str:
    return ": ".join(filter(None, [error.filename, error.strerror or str(error)]))
