"""Reads the metrics of a guest into one flat table, whichever agent it has.

Names, labels and base units follow Prometheus's conventions; `METRICS` lists them all. If an agent
lacks `qga-get-metrics`, the guest-get-* commands are used. The guest is not trusted: impossible
numbers are refused, text is made valid, and long texts and lists are cut.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from qga.client.agent import GuestAgent
from qga.client.conversion import converted, member, optional
from qga.client.errors import CommandError, GuestFrozen, ProtocolError

Readings = dict[tuple[str, ...], float]
"""Values. A key is the name of the metric followed by the values of its labels."""

MOST_ENTRIES = 1000  # of one list, such as that of the interfaces
LONGEST_LABEL = 200
MILLI, MICRO, SECTOR = 1000, 1_000_000, 1 / 512  # of the smaller unit in one base unit

# node_exporter of Prometheus leaves out the same devices: partitions, RAM disks and loops.
NO_WHOLE_DISK = re.compile(r"(z?ram|loop|fd|sr|(h|s|v|xv)d[a-z]+|(nvme\d+n|mmcblk)\d+p)\d+")


class Metric(NamedTuple):
    """A metric. It is a counter if `name` ends with _total, otherwise a gauge."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


_CPU, _DEVICE, _PLACE = ("cpu", "mode"), ("device",), ("device", "mountpoint", "fstype")

METRICS = (
    Metric("uptime_seconds", "Time since the boot."),
    Metric("boot_time_seconds", "When the guest was booted, since 1970-01-01 UTC."),
    Metric("cpu_seconds_total", "Time that each processor has spent in each mode.", _CPU),
    Metric("cpu_guest_seconds_total", "Time in nested guests, included in user and nice.", _CPU),
    Metric("load1", "Load average over 1 minute."),
    Metric("load5", "Load average over 5 minutes."),
    Metric("load15", "Load average over 15 minutes."),
    Metric("memory_total_bytes", "Memory of the guest."),
    Metric("memory_available_bytes", "Memory available to programs without swapping."),
    Metric("memory_used_bytes", "Memory in use, without caches."),
    Metric("memory_free_bytes", "Unused memory."),
    Metric("memory_buffers_bytes", "Memory used for block device buffers."),
    Metric("memory_cached_bytes", "Memory used for the page cache."),
    Metric("memory_shared_bytes", "Memory used for tmpfs and shared memory."),
    Metric("memory_slab_bytes", "Memory used for the kernel's slab allocator."),
    Metric("oom_kills_total", "Processes killed for lack of memory."),
    Metric("swap_total_bytes", "Swap space."),
    Metric("swap_used_bytes", "Swap space in use."),
    Metric("swap_free_bytes", "Unused swap space."),
    Metric("swap_in_bytes_total", "Bytes read from swap space."),
    Metric("swap_out_bytes_total", "Bytes written to swap space."),
    Metric(
        "pressure_seconds_total",
        "Time in which some tasks, or all of them (full), waited for a resource.",
        ("resource", "kind"),
    ),
    Metric("filesystem_size_bytes", "Size of a filesystem.", _PLACE),
    Metric("filesystem_used_bytes", "Bytes in use on a filesystem.", _PLACE),
    Metric("filesystem_avail_bytes", "Bytes available to unprivileged users.", _PLACE),
    Metric("filesystem_files", "Inodes of a filesystem.", _PLACE),
    Metric("filesystem_files_free", "Unused inodes.", _PLACE),
    Metric("filesystem_readonly", "1 if the filesystem is mounted read-only.", _PLACE),
    Metric("disk_reads_completed_total", "Completed reads.", _DEVICE),
    Metric("disk_read_bytes_total", "Bytes read.", _DEVICE),
    Metric("disk_read_time_seconds_total", "Time spent reading.", _DEVICE),
    Metric("disk_writes_completed_total", "Completed writes.", _DEVICE),
    Metric("disk_written_bytes_total", "Bytes written.", _DEVICE),
    Metric("disk_write_time_seconds_total", "Time spent writing.", _DEVICE),
    Metric("disk_io_time_seconds_total", "Time in which the disk was busy.", _DEVICE),
    Metric("network_receive_bytes_total", "Bytes received.", _DEVICE),
    Metric("network_receive_packets_total", "Packets received.", _DEVICE),
    Metric("network_receive_errs_total", "Errors while receiving.", _DEVICE),
    Metric("network_receive_drop_total", "Received packets dropped.", _DEVICE),
    Metric("network_transmit_bytes_total", "Bytes sent.", _DEVICE),
    Metric("network_transmit_packets_total", "Packets sent.", _DEVICE),
    Metric("network_transmit_errs_total", "Errors while sending.", _DEVICE),
    Metric("network_transmit_drop_total", "Packets dropped instead of sent.", _DEVICE),
    Metric("processes", "Processes by state.", ("state",)),
    Metric("threads", "Threads of all processes."),
)
"""All metrics, without the prefix that an exporter adds to their names."""

Table = Mapping[str, tuple[str, float]]
"""By member of a reply: the metric, and the divisor that converts to its unit."""

_GENERAL: Table = {"uptime-ms": ("uptime_seconds", MILLI), "boot-time": ("boot_time_seconds", 1)}
_LOAD: Table = {"load1m": ("load1", 1), "load5m": ("load5", 1), "load15m": ("load15", 1)}
_MEMORY: Table = {
    f"{part}-bytes": (f"memory_{part}_bytes", 1)
    for part in ("total", "available", "used", "free", "buffers", "cached", "shared", "slab")
} | {"oom-kills": ("oom_kills_total", 1)}
_SWAP: Table = {
    f"{part}-bytes": (f"swap_{part}_bytes", 1) for part in ("total", "used", "free")
} | {f"{way}-bytes": (f"swap_{way}_bytes_total", 1) for way in ("in", "out")}
_FILESYSTEM: Table = {
    "total-bytes": ("filesystem_size_bytes", 1),
    "used-bytes": ("filesystem_used_bytes", 1),
    "available-bytes": ("filesystem_avail_bytes", 1),
    "inodes": ("filesystem_files", 1),
    "inodes-free": ("filesystem_files_free", 1),
}
_DISK: Table = {
    "read-ops": ("disk_reads_completed_total", 1),
    "read-bytes": ("disk_read_bytes_total", 1),
    "read-ms": ("disk_read_time_seconds_total", MILLI),
    "write-ops": ("disk_writes_completed_total", 1),
    "write-bytes": ("disk_written_bytes_total", 1),
    "write-ms": ("disk_write_time_seconds_total", MILLI),
    "busy-ms": ("disk_io_time_seconds_total", MILLI),
}
_DISKSTATS: Table = {
    "read-ios": ("disk_reads_completed_total", 1),
    "read-sectors": ("disk_read_bytes_total", SECTOR),
    "read-ticks": ("disk_read_time_seconds_total", MILLI),
    "write-ios": ("disk_writes_completed_total", 1),
    "write-sectors": ("disk_written_bytes_total", SECTOR),
    "write-ticks": ("disk_write_time_seconds_total", MILLI),
    "total-ticks": ("disk_io_time_seconds_total", MILLI),
}
_NETWORK: Table = {
    f"{prefix}-{kind}": (f"network_{way}_{metric}_total", 1)
    for prefix, way in (("rx", "receive"), ("tx", "transmit"))
    for kind, metric in (
        ("bytes", "bytes"),
        ("packets", "packets"),
        ("errs", "errs"),
        ("dropped", "drop"),
    )
}
_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_STATES = ("running", "sleeping", "disk-sleep", "stopped", "zombie", "idle")


def read_metrics(agent: GuestAgent, timeout: float) -> Readings:
    """Everything that a guest reports within `timeout` seconds. Raises AgentError."""
    deadline = time.monotonic() + timeout

    def ask(command: str) -> Any:
        """The reply; None if the agent lacks the command or refuses it."""
        try:
            return agent.call(command, timeout=max(0.0, deadline - time.monotonic()))
        except GuestFrozen:
            raise
        except CommandError:
            return None

    agent.sync(timeout=timeout)
    reply = ask("qga-get-metrics")
    return from_metrics(reply) if reply is not None else from_standard(ask)


def from_metrics(reply: object) -> Readings:
    """The readings in a reply to qga-get-metrics."""
    found: Readings = {}
    _take(found, reply, _GENERAL)
    _take(found, member(dict, "load", reply), _LOAD)
    memory = member(dict, "memory", reply)
    _take(found, memory, _MEMORY)
    _take(found, member(dict, "swap", memory), _SWAP)
    for cpu in _entries(reply, "cpus"):
        _take_cpu(found, cpu, "-ms", "guest-nice-ms")
    for filesystem in _entries(reply, "filesystems"):
        place = tuple(_label(filesystem, key) for key in ("device", "mountpoint", "type"))
        _take(found, filesystem, _FILESYSTEM, place)
        if "read-only" in converted(dict, filesystem):
            flag = {"read-only": int(member(bool, "read-only", filesystem))}
            _take(found, flag, {"read-only": ("filesystem_readonly", 1)}, place)
    for disk in _entries(reply, "disks"):
        _take(found, disk, _DISK, (_label(disk, "name"),))
    for interface in _entries(reply, "network"):
        _take(found, interface, _NETWORK, (_label(interface, "name"),))
    processes = member(dict, "processes", reply)
    for state in _STATES:
        _take(found, processes, {state: ("processes", 1)}, (state,))
    _take(found, processes, {"threads": ("threads", 1)})
    for resource in ("cpu", "memory", "io"):
        stalls = optional(dict, resource, member(dict, "pressure", reply)) or {}
        for kind in stalls.keys() & {"some", "full"}:
            table = {"total-us": ("pressure_seconds_total", MICRO)}
            _take(found, stalls[kind], table, (resource, kind))
    return found


def from_standard(ask: Callable[[str], Any]) -> Readings:
    """The readings from QEMU's commands. `ask` returns None for a command that is missing."""
    found: Readings = {}
    for cpu in _list(ask("guest-get-cpustats")):
        _take_cpu(found, cpu, "", "guestnice")
    _take(found, ask("guest-get-load") or {}, _LOAD)
    for filesystem in _list(ask("guest-get-fsinfo")):
        _take_fsinfo(found, filesystem)
    for disk in _list(ask("guest-get-diskstats")):
        name = _label(disk, "name")
        if not NO_WHOLE_DISK.fullmatch(name):
            _take(found, member(dict, "stats", disk), _DISKSTATS, (name,))
    for interface in _list(ask("guest-network-get-interfaces")):
        figures = optional(dict, "statistics", interface) or {}
        _take(found, figures, _NETWORK, (_label(interface, "name"),))
    return found


def _take(found: Readings, source: object, table: Table, labels: tuple[str, ...] = ()) -> None:
    """Add the members of `source` that are in the table to `found`."""
    for name, (metric, divisor) in table.items():
        value = _number(source, name)
        if value is not None:
            key = (metric, *labels)
            found[key] = value / divisor


def _take_cpu(found: Readings, cpu: object, suffix: str, guest_nice: str) -> None:
    number = str(member(int, "cpu", cpu))
    for mode in _MODES:
        _take(found, cpu, {f"{mode}{suffix}": ("cpu_seconds_total", MILLI)}, (number, mode))
    for mode, name in (("user", f"guest{suffix}"), ("nice", guest_nice)):
        _take(found, cpu, {name: ("cpu_guest_seconds_total", MILLI)}, (number, mode))


def _take_fsinfo(found: Readings, filesystem: object) -> None:
    device, *place = (_label(filesystem, key) for key in ("name", "mountpoint", "type"))
    used, usable = _number(filesystem, "used-bytes"), _number(filesystem, "total-bytes")
    if used is None or usable is None:
        return
    size = _number(filesystem, "total-bytes-privileged")  # of newer agents
    figures = {
        "total-bytes": usable if size is None else size,
        "used-bytes": used,
        "available-bytes": max(0.0, usable - used),
    }
    _take(found, figures, _FILESYSTEM, (f"/dev/{device}", *place))


def _entries(reply: object, name: str) -> Iterator[object]:
    return _list(member(list, name, reply))


def _list(reply: object) -> Iterator[object]:
    return iter([] if reply is None else converted(list, reply)[:MOST_ENTRIES])


def _number(source: object, name: str) -> float | None:
    value = converted(dict, source).get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < 2**64:
        raise ProtocolError(f"'{name}' of the reply is not a possible number")
    return float(value)


def _label(source: object, name: str) -> str:
    return member(str, name, source)[:LONGEST_LABEL].encode("utf-8", "replace").decode()
