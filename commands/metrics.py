"""What monitoring wants to know about a guest, in one reply.

Counters start at boot and are never reset. To get a rate, divide the difference between two replies
by that of their `uptime-ms`. Each name ends with its unit.

psutil reads most of it. It is imported at the first call, since it costs a tenth of the agent's
memory. The import reads from the disk, so both commands may wait. Processes, and filesystems that
may hang, are read here, with fewer system calls.
"""

import os
import time
from collections.abc import Iterator
from typing import Any, cast

from qga import CommandGroup, NotRequired, QgaError, UInt64, command, until_given_up
from qga.records import TypedDict

from ._block import dev_path, device_name, is_partition, is_virtual
from ._mounts import Mount, block_mounts, size_of
from ._sysfs import parse_number, read_bytes, read_kept, read_text, understood
from .network import GuestNetworkInterfaceStat
from .processors import GuestLoadAverage

QgaSwap = TypedDict(
    "QgaSwap",
    {
        "total-bytes": UInt64,
        "used-bytes": UInt64,
        "free-bytes": UInt64,
        "in-bytes": UInt64,
        "out-bytes": UInt64,
    },
)

QgaMemory = TypedDict(
    "QgaMemory",
    {
        "total-bytes": UInt64,
        "available-bytes": UInt64,
        "used-bytes": UInt64,
        "free-bytes": UInt64,
        "buffers-bytes": UInt64,
        "cached-bytes": UInt64,
        "shared-bytes": UInt64,
        "slab-bytes": UInt64,
        "swap": QgaSwap,
        "oom-kills": NotRequired[UInt64],
    },
)

QgaCpuTimes = TypedDict(
    "QgaCpuTimes",
    {
        "cpu": NotRequired[int],
        "user-ms": UInt64,
        "nice-ms": UInt64,
        "system-ms": UInt64,
        "idle-ms": UInt64,
        "iowait-ms": UInt64,
        "irq-ms": UInt64,
        "softirq-ms": UInt64,
        "steal-ms": UInt64,
        "guest-ms": UInt64,
        "guest-nice-ms": UInt64,
    },
)

QgaStall = TypedDict(
    "QgaStall",
    {
        "avg10-percent": float,
        "avg60-percent": float,
        "avg300-percent": float,
        "total-us": UInt64,
    },
)


class QgaStalls(TypedDict):
    some: QgaStall
    full: NotRequired[QgaStall]


class QgaPressure(TypedDict):
    cpu: NotRequired[QgaStalls]
    memory: NotRequired[QgaStalls]
    io: NotRequired[QgaStalls]


QgaFilesystem = TypedDict(
    "QgaFilesystem",
    {
        "device": str,
        "mountpoint": str,
        "type": str,
        "read-only": NotRequired[bool],
        "total-bytes": NotRequired[UInt64],
        "used-bytes": NotRequired[UInt64],
        "available-bytes": NotRequired[UInt64],
        "inodes": NotRequired[UInt64],
        "inodes-free": NotRequired[UInt64],
    },
)

QgaDisk = TypedDict(
    "QgaDisk",
    {
        "name": str,
        "virtual": bool,
        "read-ops": UInt64,
        "read-bytes": UInt64,
        "read-ms": UInt64,
        "write-ops": UInt64,
        "write-bytes": UInt64,
        "write-ms": UInt64,
        "busy-ms": UInt64,
    },
)


class QgaInterface(GuestNetworkInterfaceStat):
    name: str


QgaProcesses = TypedDict(
    "QgaProcesses",
    {
        "total": int,
        "running": int,
        "sleeping": int,
        "disk-sleep": int,
        "stopped": int,
        "zombie": int,
        "idle": int,
        "threads": int,
    },
)

QgaMetrics = TypedDict(
    "QgaMetrics",
    {
        "boot-time": UInt64,
        "uptime-ms": UInt64,
        "cpu": QgaCpuTimes,
        "cpus": list[QgaCpuTimes],
        "load": GuestLoadAverage,
        "memory": QgaMemory,
        "pressure": QgaPressure,
        "filesystems": list[QgaFilesystem],
        "disks": list[QgaDisk],
        "network": list[QgaInterface],
        "processes": QgaProcesses,
    },
)

_PRESSURE = "/proc/pressure"
# The letters of proc_pid_stat(5), with psutil's words. In other states a process is dead, waking or
# parked.
_STATES = {
    b"R": "running",
    b"S": "sleeping",
    b"D": "disk-sleep",
    b"T": "stopped",
    b"t": "stopped",
    b"Z": "zombie",
    b"I": "idle",
}
_THREADS = 17  # the column of num_threads, counted from the state


class Metrics(CommandGroup):
    """Metrics for monitoring."""

    @command(access="audit", blocking=True)
    def qga_get_memory(self) -> QgaMemory:
        """Report memory and swap space, in bytes.

        available-bytes can be allocated without swapping, used-bytes excludes caches. in-bytes and
        out-bytes were swapped since boot.
        """
        _require_psutil()
        return _memory()

    @command(access="audit", blocking=True)
    def qga_get_metrics(self) -> QgaMetrics:
        """Report on processors, memory, load, pressure, filesystems, disks, network and processes.

        Counters start at boot; boot-time is in seconds since 1970-01-01 UTC. Pressure is the time
        during which some or all tasks waited for a processor, memory or a disk. Partitions and
        unused disks are left out; disks that consist of others are virtual. A filesystem that does
        not respond is listed without sizes.
        """
        _require_psutil()
        import psutil

        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        load1m, load5m, load15m = os.getloadavg()
        return {
            "boot-time": round(time.time() - uptime),
            "uptime-ms": round(uptime * 1000),
            "cpu": _cpu_times(psutil.cpu_times()),
            "cpus": _cpus(),
            "load": {"load1m": load1m, "load5m": load5m, "load15m": load15m},
            "memory": _memory(),
            "pressure": _pressure(),
            "filesystems": [_filesystem(mount) for mount in until_given_up(block_mounts())],
            "disks": list(_disks()),
            "network": _network(),
            "processes": _processes(),
        }


def _require_psutil() -> None:
    try:
        import psutil  # noqa: F401 - is it there?
    except ImportError:
        reason = "this needs psutil, which the guest's Python lacks; install python3-psutil"
        raise QgaError(reason) from None


def _memory() -> QgaMemory:
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    figures: QgaMemory = {
        "total-bytes": memory.total,
        "available-bytes": memory.available,
        "used-bytes": memory.used,
        "free-bytes": memory.free,
        "buffers-bytes": memory.buffers,
        "cached-bytes": memory.cached,
        "shared-bytes": memory.shared,
        "slab-bytes": memory.slab,
        "swap": {
            "total-bytes": swap.total,
            "used-bytes": swap.used,
            "free-bytes": swap.free,
            "in-bytes": swap.sin,
            "out-bytes": swap.sout,
        },
    }
    _, found, rest = read_kept("/proc/vmstat").partition(b"\noom_kill ")
    if found:
        figures["oom-kills"] = parse_number(rest.partition(b"\n")[0], "/proc/vmstat")
    return figures


def _cpus() -> list[QgaCpuTimes]:
    """With the numbers in /proc/stat, since psutil's list does not show which are offline."""
    import psutil

    lines = read_kept("/proc/stat").split(b"\ncpu")[1:]
    numbers = [parse_number(line.split(b" ", 1)[0], "/proc/stat") for line in lines]
    return [
        {"cpu": number, **_cpu_times(times)}
        for number, times in zip(numbers, psutil.cpu_times(percpu=True))
    ]


def _cpu_times(times: Any) -> QgaCpuTimes:
    named = {
        f"{name.replace('_', '-')}-ms": round(seconds * 1000)
        for name, seconds in times._asdict().items()
    }
    return cast(QgaCpuTimes, named)


def _pressure() -> QgaPressure:
    """Empty if the kernel does not record it (boot option psi=1)."""
    found = {}
    for resource in QgaPressure.__annotations__:
        try:
            lines = read_text(f"{_PRESSURE}/{resource}").splitlines()
        except OSError:
            continue
        stalls = dict(understood(_stall, lines))
        if stalls:
            found[resource] = stalls
    return cast(QgaPressure, found)


def _stall(line: str) -> tuple[str, QgaStall]:
    """A line such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.

    Raises ValueError or LookupError.
    """
    kind, *pairs = line.split()
    figures = dict(pair.split("=") for pair in pairs)
    return kind, {
        "avg10-percent": float(figures["avg10"]),
        "avg60-percent": float(figures["avg60"]),
        "avg300-percent": float(figures["avg300"]),
        "total-us": int(figures["total"]),
    }


def _filesystem(mount: Mount) -> QgaFilesystem:
    name = device_name(mount.device)
    filesystem: QgaFilesystem = {
        "device": mount.source if name is None else dev_path(name),
        "mountpoint": mount.paths[0],
        "type": mount.type,
    }
    size = size_of(mount)
    if size is not None:
        filesystem["read-only"] = bool(size.f_flag & os.ST_RDONLY)
        filesystem["total-bytes"] = size.f_blocks * size.f_frsize
        filesystem["used-bytes"] = (size.f_blocks - size.f_bfree) * size.f_frsize
        filesystem["available-bytes"] = size.f_bavail * size.f_frsize
        filesystem["inodes"] = size.f_files
        filesystem["inodes-free"] = size.f_ffree
    return filesystem


def _disks() -> Iterator[QgaDisk]:
    import psutil

    for name, counters in psutil.disk_io_counters(perdisk=True, nowrap=False).items():
        try:
            if not any(counters) or is_partition(name):
                continue
            virtual = is_virtual(name)
        except FileNotFoundError:  # unplugged meanwhile, or hidden
            continue
        yield {
            "name": name,
            "virtual": virtual,
            "read-ops": counters.read_count,
            "read-bytes": counters.read_bytes,
            "read-ms": counters.read_time,
            "write-ops": counters.write_count,
            "write-bytes": counters.write_bytes,
            "write-ms": counters.write_time,
            "busy-ms": counters.busy_time,
        }


def _network() -> list[QgaInterface]:
    import psutil

    return [
        {
            "name": name,
            "rx-bytes": counters.bytes_recv,
            "rx-packets": counters.packets_recv,
            "rx-errs": counters.errin,
            "rx-dropped": counters.dropin,
            "tx-bytes": counters.bytes_sent,
            "tx-packets": counters.packets_sent,
            "tx-errs": counters.errout,
            "tx-dropped": counters.dropout,
        }
        for name, counters in psutil.net_io_counters(pernic=True, nowrap=False).items()
    ]


def _processes() -> QgaProcesses:
    counts = dict.fromkeys(QgaProcesses.__annotations__, 0)
    for state, threads in understood(_state_and_threads, _process_lines()):
        counts["total"] += 1
        counts["threads"] += threads
        if state in _STATES:
            counts[_STATES[state]] += 1
    return cast(QgaProcesses, counts)


def _process_lines() -> Iterator[bytes]:
    for pid in os.listdir("/proc"):
        if pid.isdecimal():
            try:
                yield read_bytes(f"/proc/{pid}/stat")
            except OSError:  # it has exited meanwhile
                continue


def _state_and_threads(line: bytes) -> tuple[bytes, int]:
    """Raises ValueError or LookupError."""
    state, *figures = line.rpartition(b") ")[2].split()
    return state, int(figures[_THREADS - 1])
