"""Guests as piggybacked hosts of Checkmk, with the sections that its agent for Linux has.

What must stay true: a guest adds to its own sections only. A line that begins with `<<<` and ends
with `>>>` would begin the section, or the host, that it names. So the guest's texts keep neither
angle brackets nor characters that end a line or a field.

There is no section `check_mk`: it is about Checkmk's own agent, which the guest does not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from qga.client.errors import GuestFrozen
from qga.client.monitoring.metrics import Readings
from qga.client.monitoring.watch import Sighting

LONGEST_HOST = 200  # characters; Checkmk has files of that name
LONGEST_REASON = 300  # characters; parts of it come from the guest
SERVICE = "QEMU guest agent"
OK, CRITICAL, UNKNOWN = 0, 2, 3  # of a local check
NOT_IN_A_NAME = re.compile(r"[^0-9A-Za-z_.-]")  # Checkmk's rule for names of hosts

# Full by design.
ALWAYS_FULL = {"erofs", "iso9660", "squashfs", "udf"}
HERTZ = 100  # unit of the processor times in /proc/stat: 10 ms
KIB, SECTOR = 1024, 512
LABELS = {"cmk/device_type": "vm"}

_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_MEMINFO = {
    "MemTotal": "memory_total_bytes",
    "MemFree": "memory_free_bytes",
    "MemAvailable": "memory_available_bytes",
    "Buffers": "memory_buffers_bytes",
    "Cached": "memory_cached_bytes",
    "Shmem": "memory_shared_bytes",
    "SwapTotal": "swap_total_bytes",
    "SwapFree": "swap_free_bytes",
}
# Columns of /proc/net/dev and /proc/diskstats, with their units (0.001: milliseconds); None: not
# known.
_RECEIVED = ("bytes", "packets", "errs", "drop", None, None, None, None)
_DISKSTATS = (
    ("disk_reads_completed_total", 1),
    None,
    ("disk_read_bytes_total", SECTOR),
    ("disk_read_time_seconds_total", 0.001),
    ("disk_writes_completed_total", 1),
    None,
    ("disk_written_bytes_total", SECTOR),
    ("disk_write_time_seconds_total", 0.001),
    None,
    ("disk_io_time_seconds_total", 0.001),
    None,
)

Lines = Iterator[str]


def host_name(guest: str) -> str:
    """The name of the guest as a host: what Checkmk does not permit becomes an underscore."""
    host = NOT_IN_A_NAME.sub("_", guest)[:LONGEST_HOST]
    # An empty name would end the guest's part, and what follows would be about this host.
    return host if host.strip(".") else "_"


def piggyback(sighting: Sighting, now: float) -> Lines:
    """The lines of one guest. now: seconds since 1970."""
    yield f"<<<<{host_name(sighting.target.name)}>>>>"
    yield from section("labels:sep(0)", [json.dumps(LABELS)])
    yield from section("local:sep(0)", [local_check(sighting)])
    readings = sighting.readings or {}
    for header, lines in sections(now).items():
        yield from section(header, lines(readings))
    yield "<<<<>>>>"


def sections(now: float) -> dict[str, Callable[[Readings], Lines]]:
    """What makes the lines of each section, by its header."""
    return {
        "uptime": _uptime,
        "cpu": _load,
        "kernel": partial(_kernel, int(now)),
        "mem": _memory,
        "df:sep(9)": _filesystems,
        "diskstat": partial(_disks, int(now)),
        "lnx_if:sep(58)": _interfaces,
    }


def section(header: str, lines: Sequence[str] | Lines) -> Lines:
    """The section, unless it is empty."""
    first = True
    for line in lines:
        if first:
            yield f"<<<{header}>>>"
        first = False
        yield line


def local_check(sighting: Sighting) -> str:
    """STATUS "SERVICE" METRICS TEXT."""
    if sighting.readings is not None:
        seconds = sighting.seconds
        return f'{OK} "{SERVICE}" response_time={seconds:.3f} answered after {seconds:.3f} s'
    state = UNKNOWN if isinstance(sighting.cause, GuestFrozen) else CRITICAL
    return f'{state} "{SERVICE}" - {clean(sighting.error)[:LONGEST_REASON]}'


def clean(text: str) -> str:
    """On one line, in one field, and no header."""
    return "".join(each if each.isprintable() and each not in "<>" else "_" for each in text)


def word(text: str) -> str:
    """A name among fields that spaces or colons separate."""
    return re.sub(r"[\s:]", "_", clean(text)) or "_"


def labels_of(readings: Readings, metric: str) -> list[tuple[str, ...]]:
    return [labels for name, *rest in readings if name == metric for labels in [tuple(rest)]]


def _uptime(readings: Readings) -> Lines:
    if ("uptime_seconds",) in readings:
        yield f"{readings[('uptime_seconds',)]:.2f}"


def _load(readings: Readings) -> Lines:
    """/proc/loadavg and the number of processors. Checkmk needs the number of threads."""
    loads = [readings.get((name,)) for name in ("load1", "load5", "load15")]
    threads = readings.get(("threads",))
    if threads is None or None in loads:
        return
    running = readings.get(("processes", "running"), 0)
    cpus = len({labels[0] for labels in labels_of(readings, "cpu_seconds_total")})
    figures = " ".join(f"{each:.2f}" for each in loads)
    yield f"{figures} {running:.0f}/{threads:.0f} 0 {cpus or 1}"


def _kernel(now: int, readings: Readings) -> Lines:
    """/proc/stat, of which Checkmk takes the processor times."""
    cpus = sorted({labels[0] for labels in labels_of(readings, "cpu_seconds_total")}, key=int)
    times = {cpu: [_ticks(readings, cpu, mode) for mode in _MODES] for cpu in cpus}
    for cpu, row in times.items():
        row += [_ticks(readings, cpu, mode, "guest_") for mode in ("user", "nice")]
    if times:
        yield f"{now}"
        yield f"cpu {' '.join(str(sum(column)) for column in zip(*times.values()))}"
    for cpu, row in times.items():
        yield f"cpu{cpu} {' '.join(map(str, row))}"


def _ticks(readings: Readings, cpu: str, mode: str, kind: str = "") -> int:
    return round(readings.get((f"cpu_{kind}seconds_total", cpu, mode), 0) * HERTZ)


def _memory(readings: Readings) -> Lines:
    for name, metric in _MEMINFO.items():
        if (metric,) in readings:
            yield f"{name}: {readings[(metric,)] / KIB:.0f} kB"


def _filesystems(readings: Readings) -> Lines:
    """df, then df --inodes; separated by tabs, since paths may have spaces."""
    places = labels_of(readings, "filesystem_size_bytes")
    places = [place for place in places if place[2] not in ALWAYS_FULL]
    yield from (line for place in places for line in _df_of_bytes(readings, place))
    inodes = [line for place in places for line in _df_of_inodes(readings, place)]
    if inodes:
        yield from ("[df_inodes_start]", *inodes, "[df_inodes_end]")


def _df_of_bytes(readings: Readings, place: tuple[str, ...]) -> Lines:
    keys = [(f"filesystem_{which}_bytes", *place) for which in ("size", "used", "avail")]
    figures = [round(readings[key] / KIB) for key in keys if key in readings]
    if len(figures) == 3:
        yield _df_line(place, figures)


def _df_of_inodes(readings: Readings, place: tuple[str, ...]) -> Lines:
    total = readings.get(("filesystem_files", *place))
    free = readings.get(("filesystem_files_free", *place))
    if total and free is not None:
        yield _df_line(place, [round(total), round(total - free), round(free)])


def _df_line(place: tuple[str, ...], figures: list[int]) -> str:
    device, mountpoint, kind = map(clean, place)
    _, used, available = figures
    percent = f"{100 * used / (used + available or 1):.0f}%"
    return "\t".join([device, kind, *map(str, figures), percent, mountpoint])


def _disks(now: int, readings: Readings) -> Lines:
    """/proc/diskstats. What is not known is 0."""
    disks = labels_of(readings, "disk_read_bytes_total")
    if disks:
        yield f"{now}"
    for (disk,) in disks:
        columns = [
            round(readings.get((column[0], disk), 0) / column[1]) if column else 0
            for column in _DISKSTATS
        ]
        yield f"0 0 {word(disk)} {' '.join(map(str, columns))}"


def _interfaces(readings: Readings) -> Lines:
    """/proc/net/dev. What is not known is 0."""
    for (device,) in labels_of(readings, "network_receive_bytes_total"):
        columns = [
            round(readings.get((f"network_{way}_{each}_total", device), 0)) if each else 0
            for way in ("receive", "transmit")
            for each in _RECEIVED
        ]
        yield f"{word(device)}: {' '.join(map(str, columns))}"
