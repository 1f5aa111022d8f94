"""Events: what happens in the guest, reported to the host as it happens.

They go over a data port, one JSON object a line, since neither libvirt nor Proxmox VE expects any
on the agent's own channel. What watches is loaded when it is needed.
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
"""Seconds between two looks at the usage of filesystems."""

_DESCRIPTORS = 6  # of a watch: port, netlink, mounts, pressure, kernel's log, inotify
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
        """Report what happens in the guest over a data port, one JSON object a line.

        port: name of a data port that the host is connected to. When the host disconnects the
            watch ends.
        events: what to report. address: addresses that can be used, and that cannot any longer.
            mount: filesystems that are mounted, unmounted, read-only, or writable again. usage:
            filesystems that are fuller than `usage-percent`, or no longer. pressure: programs
            wait for memory, at most every 2 s. oom: a program was killed because memory was short.
            session: users log in and out. freeze: filesystems are frozen and thawed. By default
            all; usage only with `usage-interval`.
        usage-interval: seconds, at least 10, between two looks at how full filesystems are.
            Nothing tells of that, so this is the only kind for which an idle guest wakes up.
        usage-percent: from which usage a filesystem is reported.
        Returns the number of the watch, which its first line has as well: what comes before that
        line belongs to an earlier one. `unavailable` has the kinds that this guest cannot report,
        or not in all cases. While 256 KiB wait for the host events are dropped; a line with their
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
        """Run a look of a watch on a worker, unless that may wait for a frozen disk."""
        if self.agent.frozen:
            return
        try:
            self.agent.worker.submit(job, done, channel=channel)
        except QgaError:  # all threads are busy; the next look is soon
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
    """What to report, each once."""
    if events is None:
        return [*_TOLD, "usage"] if interval is not None else list(_TOLD)
    if "usage" in events and interval is None:
        raise QgaError(
            "Parameter 'usage-interval' is missing: nothing tells how full a filesystem is, so say "
            "after how many seconds to look"
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
