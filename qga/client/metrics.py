"""The results of qga-get-metrics and qga-get-memory as typed values.

Fields are named as on the wire and end with their unit; counters start at boot.
`qga.client.monitoring.metrics` provides the same as a flat table, with any agent.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from qga.client.results import LoadAverage


class Swap(NamedTuple):
    """Swap space; `in_bytes` and `out_bytes` were swapped since the boot."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    in_bytes: int
    out_bytes: int


class MemoryUse(NamedTuple):
    """Memory; `available_bytes` can be allocated without swapping."""

    total_bytes: int
    available_bytes: int
    used_bytes: int
    free_bytes: int
    buffers_bytes: int
    cached_bytes: int
    shared_bytes: int
    slab_bytes: int
    swap: Swap
    oom_kills: Optional[int] = None


class CpuTimes(NamedTuple):
    """The time that a processor has spent in each mode; all of them if `cpu` is None."""

    user_ms: int
    nice_ms: int
    system_ms: int
    idle_ms: int
    iowait_ms: int
    irq_ms: int
    softirq_ms: int
    steal_ms: int
    guest_ms: int
    guest_nice_ms: int
    cpu: Optional[int] = None


class Stall(NamedTuple):
    """How long tasks have waited for a resource, on average and in total."""

    avg10_percent: float
    avg60_percent: float
    avg300_percent: float
    total_us: int


class Stalls(NamedTuple):
    """Times in which some tasks, or all of them, waited."""

    some: Stall
    full: Optional[Stall] = None


class Pressure(NamedTuple):
    """Waits by resource; None if the kernel does not measure them."""

    cpu: Optional[Stalls] = None
    memory: Optional[Stalls] = None
    io: Optional[Stalls] = None


class FilesystemUse(NamedTuple):
    """A filesystem; without numbers if it does not respond."""

    device: str
    mountpoint: str
    type: str
    read_only: Optional[bool] = None
    total_bytes: Optional[int] = None
    used_bytes: Optional[int] = None
    available_bytes: Optional[int] = None
    inodes: Optional[int] = None
    inodes_free: Optional[int] = None


class DiskUse(NamedTuple):
    """A disk; `virtual` if it consists of others."""

    name: str
    virtual: bool
    read_ops: int
    read_bytes: int
    read_ms: int
    write_ops: int
    write_bytes: int
    write_ms: int
    busy_ms: int


class InterfaceUse(NamedTuple):
    """A network interface."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errs: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errs: int
    tx_dropped: int


class Processes(NamedTuple):
    """Numbers of processes by state, and of the `threads` of all of them."""

    total: int
    running: int
    sleeping: int
    disk_sleep: int
    stopped: int
    zombie: int
    idle: int
    threads: int


class Metrics(NamedTuple):
    """All of it; `boot_time` in seconds since 1970-01-01 UTC."""

    boot_time: int
    uptime_ms: int
    cpu: CpuTimes
    cpus: tuple[CpuTimes, ...]
    load: LoadAverage
    memory: MemoryUse
    pressure: Pressure
    filesystems: tuple[FilesystemUse, ...]
    disks: tuple[DiskUse, ...]
    network: tuple[InterfaceUse, ...]
    processes: Processes
