"""Replies about disks and filesystems as values with names and types; see results.py."""

from __future__ import annotations

from typing import NamedTuple, Optional


class PCIAddress(NamedTuple):
    """A PCI address; all members are -1 if the agent does not know it."""

    domain: int
    bus: int
    slot: int
    function: int


class CCWAddress(NamedTuple):
    cssid: int
    ssid: int
    subchno: int
    devno: int


class DiskAddress(NamedTuple):
    """The address of a disk in the machine."""

    bus_type: str
    bus: int
    target: int
    unit: int
    pci_controller: PCIAddress
    serial: Optional[str] = None
    dev: Optional[str] = None
    ccw_address: Optional[CCWAddress] = None


class DiskSmart(NamedTuple):
    """The health log of an NVMe drive; `…_lo` and `…_hi` are halves of numbers of 128 bits."""

    type: str
    critical_warning: Optional[int] = None
    temperature: Optional[int] = None
    available_spare: Optional[int] = None
    available_spare_threshold: Optional[int] = None
    percentage_used: Optional[int] = None
    data_units_read_lo: Optional[int] = None
    data_units_read_hi: Optional[int] = None
    data_units_written_lo: Optional[int] = None
    data_units_written_hi: Optional[int] = None
    host_read_commands_lo: Optional[int] = None
    host_read_commands_hi: Optional[int] = None
    host_write_commands_lo: Optional[int] = None
    host_write_commands_hi: Optional[int] = None
    controller_busy_time_lo: Optional[int] = None
    controller_busy_time_hi: Optional[int] = None
    power_cycles_lo: Optional[int] = None
    power_cycles_hi: Optional[int] = None
    power_on_hours_lo: Optional[int] = None
    power_on_hours_hi: Optional[int] = None
    unsafe_shutdowns_lo: Optional[int] = None
    unsafe_shutdowns_hi: Optional[int] = None
    media_errors_lo: Optional[int] = None
    media_errors_hi: Optional[int] = None
    number_of_error_log_entries_lo: Optional[int] = None
    number_of_error_log_entries_hi: Optional[int] = None


class DiskInfo(NamedTuple):
    """A disk, partition or volume; `dependencies` are the devices that it consists of."""

    name: str
    partition: bool
    dependencies: tuple[str, ...] = ()
    address: Optional[DiskAddress] = None
    alias: Optional[str] = None
    smart: Optional[DiskSmart] = None


class DiskCounters(NamedTuple):
    """Counters since boot; ticks are milliseconds, sectors 512 bytes."""

    read_ios: Optional[int] = None
    read_merges: Optional[int] = None
    read_sectors: Optional[int] = None
    read_ticks: Optional[int] = None
    write_ios: Optional[int] = None
    write_merges: Optional[int] = None
    write_sectors: Optional[int] = None
    write_ticks: Optional[int] = None
    ios_pgr: Optional[int] = None
    total_ticks: Optional[int] = None
    weight_ticks: Optional[int] = None
    discard_ios: Optional[int] = None
    discard_merges: Optional[int] = None
    discard_sectors: Optional[int] = None
    discard_ticks: Optional[int] = None
    flush_ios: Optional[int] = None
    flush_ticks: Optional[int] = None


class DiskStats(NamedTuple):
    """A block device by its kernel name (vda, without /dev/), and its counters."""

    name: str
    major: int
    minor: int
    stats: DiskCounters


class FilesystemInfo(NamedTuple):
    """A mounted filesystem and the disks that it is on.

    `total_bytes` is the size for ordinary users, `total_bytes_privileged` that for root.
    """

    name: str
    mountpoint: str
    type: str
    disk: tuple[DiskAddress, ...] = ()
    used_bytes: Optional[int] = None
    total_bytes: Optional[int] = None
    total_bytes_privileged: Optional[int] = None


class FreezeParticipant(NamedTuple):
    """A filesystem of the guest; `reason`: why it is not frozen."""

    mountpoint: str
    type: str
    reason: Optional[str] = None


class FreezeState(NamedTuple):
    """frozen or thawed; for how many seconds, and in how many the agent thaws by itself.

    filesystems: those that are frozen. left_out: writable ones that are not. hooks: paths of the
    freeze hooks that have run. These are None if the agent is not qga, or has not frozen them.
    """

    status: str
    seconds: Optional[float] = None
    thaw_in: Optional[float] = None
    filesystems: Optional[list[FreezeParticipant]] = None
    left_out: Optional[list[FreezeParticipant]] = None
    hooks: Optional[list[str]] = None


class TrimResult(NamedTuple):
    """How many bytes of the filesystem at `path` were trimmed, or the error."""

    path: str
    trimmed: Optional[int] = None
    minimum: Optional[int] = None
    error: Optional[str] = None


class GrowthStep(NamedTuple):
    """One device, or the filesystem, that a tool of the guest grows; sizes in bytes.

    `layer`: partition, crypt, physical-volume, logical-volume or filesystem. If it is not `done`,
    `after` is a forecast.
    """

    layer: str
    device: str
    tool: str
    before: int
    after: int
    done: bool


class Growth(NamedTuple):
    """How a filesystem of `size` bytes was grown, or would be, from the disk up.

    No `steps`: it has nowhere to grow. `obstacles` say why devices beneath it cannot grow.
    """

    mountpoint: str
    type: str
    size: int
    steps: tuple[GrowthStep, ...] = ()
    obstacles: tuple[str, ...] = ()
