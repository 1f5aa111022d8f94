"""Events of the guest, reported to the host as they happen.

They are sent over a data port, one JSON object per line, because neither libvirt nor Proxmox VE
expects events on the agent's own channel. The code of a watch is imported when it is needed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, Optional

from qga import Caller, CommandGroup, NotRequired, QgaError, command
from qga.records import TypedDict

if TYPE_CHECKING:
    from qga.plugin.services import Services

    from ._watch import Watch

MAX_WATCHES = 4
"""Watches of a channel."""

MIN_INTERVAL = 10.0
"""Seconds between two checks of the usage of filesystems."""

_DESCRIPTORS = 6  # of a watch: port, rtnetlink, mounts, pressure, kernel log, inotify
_MAX_PERCENT = 100
_MAX_INTERVAL = 86400  # seconds

QgaEventKind = Literal["address", "mount", "usage", "pressure", "oom", "session", "freeze"]

_TOLD = ("address", "mount", "pressure", "oom", "session", "freeze")


class QgaUntold(TypedDict):
    event: QgaEventKind
    reason: str


QgaWatch = TypedDict(
    "QgaWatch",
    {
        "watch": int,
        "events": list[QgaEventKind],
        "unavailable": NotRequired[list[QgaUntold]],
        "agent-started-ms": int,
    },
)


class Events(CommandGroup):
    """Events, pushed over a data port."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._started_ms = time.time_ns() // 10**6
        self._watches: dict[Watch, str] = {}  # with their channels

    @command(access="audit", blocking=True, changes=True)
    def qga_watch(
        self,
        port: str,
        events: Optional[list[QgaEventKind]] = None,
        usage_interval: Optional[int] = None,
        usage_percent: int = 90,
        *,
        caller: Caller,
    ) -> QgaWatch:
        """Report events over a data port, one JSON object per line.

        port: name of a data port that the host is connected to. The watch ends when the host
            disconnects.
        events: the kinds of events; by default all, but usage only with `usage-interval`. address:
            addresses are added or removed. mount: filesystems are mounted, unmounted, read-only, or
            writable again. usage: filesystems exceed `usage-percent`, or no longer do. pressure:
            programs wait for memory, at most every 2 s. oom: a program was killed for lack of
            memory. session: users log in or out. freeze: filesystems are frozen or thawed.
        usage-interval: seconds, at least 10, between two checks of the usage. The kernel reports
            everything else, so this is the only kind that wakes up an idle guest.
        usage-percent: the usage above which a filesystem is reported.
        Returns the number of the watch, which its first line contains as well; lines before that
        belong to an earlier watch. `unavailable` lists the kinds that this guest cannot report, or
        not in all cases. While 256 KiB wait for the host, events are dropped; a line with their
        number follows. docs/readiness.md describes the lines.
        """
        kinds = _kinds(events, usage_interval)
        usage = _usage(usage_percent, usage_interval)
        channel = caller.channel
        self.agent.descriptors.take(channel, _DESCRIPTORS)
        try:
            watch = self._open(port, kinds, usage, caller)
        except BaseException:
            self.agent.descriptors.give(channel, _DESCRIPTORS)
            raise
        self.agent.loop.post(lambda: self._start(watch, channel))
        return self._described(watch, kinds)

    def on_stop(self) -> None:
        for watch in list(self._watches):
            watch.close(farewell="agent-stopped")

    def on_freeze(self) -> None:
        for watch in self._watches:
            watch.tell_if_wanted("freeze", "frozen")

    def on_thaw(self) -> None:
        for watch in self._watches:
            watch.tell_if_wanted("freeze", "thawed")

    def _open(self, port: str, kinds: list[Any], usage: tuple[int, int], caller: Caller) -> Watch:
        from ._ports import connected_port
        from ._watch import Watch

        channel = caller.channel
        if list(self._watches.values()).count(channel) >= MAX_WATCHES:
            raise QgaError(
                f"this channel has {MAX_WATCHES} watches already; disconnect from a port"
            )
        opened = connected_port(port, caller)
        try:
            return Watch(opened, kinds, usage, lambda *job: self._submit(channel, *job))
        except BaseException:
            opened.close()
            raise

    def _start(self, watch: Watch, channel: str) -> None:
        def on_closed() -> None:
            del self._watches[watch]
            self.agent.descriptors.give(channel, _DESCRIPTORS)

        self._watches[watch] = channel
        watch.start(self.agent.loop, on_closed, **{"agent-started-ms": self._started_ms})

    def _submit(self, channel: str, job: Any, done: Any) -> None:
        """Run a check of a watch on a worker thread, unless it may wait for a frozen disk."""
        if self.agent.frozen:
            return
        try:
            self.agent.worker.submit(job, done, channel=channel)
        except QgaError:  # all threads are busy; the next check comes soon
            pass

    def _described(self, watch: Watch, kinds: list[Any]) -> QgaWatch:
        result: QgaWatch = {
            "watch": watch.number,
            "events": kinds,
            "agent-started-ms": self._started_ms,
        }
        if watch.unavailable:
            result["unavailable"] = [
                {"event": kind, "reason": reason}  # type: ignore[typeddict-item]
                for kind, reason in watch.unavailable
            ]
        return result


def _kinds(events: list[Any] | None, interval: int | None) -> list[Any]:
    """The kinds of events to report, without duplicates."""
    if events is None:
        return [*_TOLD, "usage"] if interval is not None else list(_TOLD)
    if "usage" in events and interval is None:
        raise QgaError(
            "Parameter 'usage-interval' is missing: Linux does not report usage, so give the "
            "number of seconds between two checks"
        )
    return list(dict.fromkeys(events))


def _usage(percent: int, interval: int | None) -> tuple[int, int]:
    if not 0 < percent <= _MAX_PERCENT:
        raise QgaError(f"Parameter 'usage-percent' is {percent}; use 1 to {_MAX_PERCENT}")
    if interval is not None and not MIN_INTERVAL <= interval <= _MAX_INTERVAL:
        raise QgaError(
            f"Parameter 'usage-interval' is {interval}; use {MIN_INTERVAL:.0f} to {_MAX_INTERVAL} s"
        )
    return percent, interval or _MAX_INTERVAL
