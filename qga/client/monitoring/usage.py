"""Rates and shares of a guest, computed from two readings of its counters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from qga.client.errors import AgentError
from qga.client.monitoring.metrics import Readings
from qga.client.monitoring.watch import Sighting, Target, Watcher

# Shortest interval, in seconds, for rates: agents report their time in milliseconds.
SHORTEST = 0.001

MADE_OF_OTHERS = re.compile(r"(dm-|md)\d+")  # their disks count the same bytes


class Flow(NamedTuple):
    """Bytes per second into the guest's memory, and out of it."""

    incoming: float
    outgoing: float


class Level(NamedTuple):
    """Bytes in use, and in total."""

    used: float
    total: float

    @property
    def share(self) -> float:
        return self.used / self.total if self.total else 0.0


class Usage(NamedTuple):
    """What a guest is doing. None or empty: not reported, or not known yet.

    cpu, cpus: busy share of all processors, and of each. disks, network: by name of the device.
    filesystems: by mount point. uptime: in seconds.
    """

    cpu: float | None
    cpus: dict[str, float]
    load: float | None
    memory: Level | None
    swap: Level | None
    network: dict[str, Flow]
    disks: dict[str, Flow]
    filesystems: dict[str, Level]
    processes: int | None
    uptime: float | None


class Row(NamedTuple):
    """A guest and its usage. If it does not answer, `usage` is None, and `error` says why."""

    name: str
    usage: Usage | None
    error: str
    cause: AgentError | None = None


class Monitor:
    """Reads the counters of guests repeatedly, and computes rates between readings."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._last: dict[Target, Sighting] = {}

    def look(self, patience: float | None = None) -> list[Row]:
        """A row for each guest, after at most `patience` seconds; see Watcher.look."""
        return [self._row(sighting) for sighting in self._watcher.look(patience)]

    def _row(self, sighting: Sighting) -> Row:
        name = sighting.target.name
        if sighting.readings is None:
            return Row(name, None, sighting.error, sighting.cause)
        before = self._last.get(sighting.target, sighting)
        self._last[sighting.target] = sighting
        seconds = sighting.at - before.at
        return Row(name, usage(before.readings or {}, sighting.readings, seconds), "")


def usage(before: Readings, now: Readings, seconds: float) -> Usage:
    """The usage between two readings that are `seconds` apart by our clock.

    The guest's own clock is used if it is reported, because a reply may be late.
    """
    seconds = now.get(("uptime_seconds",), seconds) - before.get(("uptime_seconds",), 0.0)
    grown = {
        key: value - before[key]
        for key, value in now.items()
        if seconds >= SHORTEST and value >= before.get(key, value + 1)
    }
    cpus = _busy(grown)
    processes = [value for key, value in now.items() if key[0] == "processes"]
    return Usage(
        cpu=sum(cpus.values()) / len(cpus) if cpus else None,
        cpus=cpus,
        load=now.get(("load1",)),
        memory=_memory(now),
        swap=_level(now, "swap_used_bytes", "swap_total_bytes"),
        network=_flows(
            grown, seconds, "network_receive_bytes_total", "network_transmit_bytes_total"
        ),
        disks=_flows(grown, seconds, "disk_read_bytes_total", "disk_written_bytes_total"),
        filesystems=_filesystems(now),
        processes=int(sum(processes)) if processes else None,
        uptime=now.get(("uptime_seconds",)),
    )


def total(flows: dict[str, Flow], counts: Callable[[str], bool]) -> Flow | None:
    """The sum of the flows through the devices for which `counts` is true."""
    chosen = [flow for name, flow in flows.items() if counts(name)]
    if not chosen:
        return None
    return Flow(sum(flow.incoming for flow in chosen), sum(flow.outgoing for flow in chosen))


def is_link(name: str) -> bool:
    """Whether the traffic of a network interface leaves the guest."""
    return name != "lo"


def is_disk(name: str) -> bool:
    """Whether a block device is not made of other ones."""
    return MADE_OF_OTHERS.fullmatch(name) is None


def _busy(grown: Readings) -> dict[str, float]:
    spent: dict[str, float] = {}
    idle: dict[str, float] = {}
    for (metric, *labels), seconds in grown.items():
        if metric == "cpu_seconds_total":
            cpu, mode = labels
            spent[cpu] = spent.get(cpu, 0.0) + seconds
            if mode in ("idle", "iowait"):
                idle[cpu] = idle.get(cpu, 0.0) + seconds
    return {cpu: 1 - idle.get(cpu, 0.0) / each for cpu, each in spent.items() if each > 0}


def _memory(now: Readings) -> Level | None:
    whole, available = now.get(("memory_total_bytes",)), now.get(("memory_available_bytes",))
    if whole is None or available is None:
        return None
    return Level(max(0.0, whole - available), whole)


def _level(now: Readings, used: str, whole: str) -> Level | None:
    if (used,) not in now or (whole,) not in now:
        return None
    return Level(now[(used,)], now[(whole,)])


def _flows(grown: Readings, seconds: float, incoming: str, outgoing: str) -> dict[str, Flow]:
    return {
        key[1]: Flow(grown[key] / seconds, grown[(outgoing, key[1])] / seconds)
        for key in grown
        if key[0] == incoming and (outgoing, key[1]) in grown
    }


def _filesystems(now: Readings) -> dict[str, Level]:
    """Reserved blocks count as used, as in the percentage that df(1) shows."""
    found = {}
    for (metric, *place), used in now.items():
        key = ("filesystem_avail_bytes", *place)
        if metric == "filesystem_used_bytes" and key in now:
            found[place[1]] = Level(used, used + now[key])
    return found
