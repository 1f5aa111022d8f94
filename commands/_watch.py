"""A watch: events of the guest, as lines of JSON on a data port.

Nothing runs while nothing happens, because each source is a descriptor of the kernel on the loop.
Lines that the host has not read wait in a queue of limited size. Events that do not fit are
counted, and once the host has caught up, a line says how many were dropped. Nothing here accesses a
disk, so a watch continues while filesystems are frozen.
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
        """A source of events."""

        def watch(self, loop: Loop) -> None: ...

        def close(self) -> None: ...


MAX_QUEUED = 256 * 1024
"""Bytes of lines in the queue."""

_WRITE_SIZE = 32 * 1024  # the most that a port takes at once
_TURN = 16  # writes before other connections get a turn
# RDHUP: vsock reports it; the host has nothing to send.
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_EDGES = select.EPOLLOUT | _GONE | select.EPOLLET


class Queue:
    """Lines that the host has not read yet.

    data: their bytes. Beyond `most` bytes lines are dropped and counted, until the host has read
        half of the queue.
    """

    def __init__(self, most: int = MAX_QUEUED) -> None:
        self.data = bytearray()
        self.dropped = 0
        self._missed: set[str] = set()  # kinds, by dropped lines
        self._most = most

    def put(self, event: dict[str, Any]) -> None:
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        # After the first dropped line all others are dropped, so that the count is at its place.
        if self.dropped or len(self.data) + len(line) > self._most:
            self.dropped += 1
            if event["event"] == "missed":
                self._missed.add(event["kind"])
        else:
            self.data += line

    def take(self, count: int) -> None:
        """Remove that many bytes, which were sent."""
        del self.data[:count]
        if self.dropped and len(self.data) <= self._most // 2:
            members: dict[str, Any] = {"count": self.dropped}
            if self._missed:
                members["missed"] = sorted(self._missed)
            self.dropped, self._missed = 0, set()
            self.put(stamped("dropped", **members))


class Watch:
    """The constructor, which may block, opens the sources; `start` follows them.

    kinds: the kinds of events to report. submit: runs a function on a worker thread.
    number: of this watch. unavailable: why some kinds, or parts of them, cannot be reported.
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
        """Follow the sources on the loop. The first line contains the `greeting`.

        on_closed: called when the host has disconnected or the agent stops.
        """
        self._loop = loop
        self._on_closed = on_closed
        loop.watch(self._port.fileno(), self._on_port, _EDGES)
        for source in self._sources:
            source.watch(loop)
        self.tell("watching", watch=self.number, **greeting)

    def tell(self, name: str, /, **members: Any) -> None:
        """Add an event to the queue."""
        self._queue.put(stamped(name, **members))
        if not self._flush_is_due:  # flush once for all events of a turn
            self._flush_is_due = True
            self._loop.post(self._flush)

    def tell_if_wanted(self, kind: str, name: str) -> None:
        if kind in self._kinds:
            self.tell(name)

    def close(self, *, farewell: str = "") -> None:
        """Close the watch, with a last event if the port accepts it immediately."""
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
        """Follow the kernel's log for OOM kills and filesystems that have turned read-only."""
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
        """Write the queue as far as the port accepts it."""
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
    """An event with the current time."""
    return {"event": name, "time-ms": time.time_ns() // 10**6, **members}


def _reason(error: OSError) -> str:
    return ": ".join(filter(None, [error.filename, error.strerror or str(error)]))
