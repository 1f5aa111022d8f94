"""Replies as values with names and types.

The names are those on the wire, with `_` for `-`, except for a few that would be unclear;
docs/commands.md describes the commands. A field that is None or empty was not reported: the agent
is older, or the guest has no such thing. qga.client.shapes makes and checks them.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, Optional, Union

# What a shell adds to the signal in the exit status of a program that was killed.
SIGNAL_STATUS = 128


class CommandInfo(NamedTuple):
    """A command that the agent has. `success_response`: whether success is answered at all."""

    name: str
    enabled: bool
    success_response: bool = True


class AgentInfo(NamedTuple):
    """The agent's version (of QEMU's interface) and its commands, in the agent's order."""

    version: str
    commands: Annotated[tuple[CommandInfo, ...], "supported_commands"]

    def offers(self, name: str) -> bool:
        """Whether the agent has a command of this name, and it is enabled."""
        return any(command.name == name and command.enabled for command in self.commands)


class Release(NamedTuple):
    """The version of qga in the guest, and that of the Python that runs it."""

    version: str
    python: str


class ExecResult(NamedTuple):
    """How a program in the guest ended: with an exit code, or by a signal.

    `stdout` and `stderr` are empty unless captured. Only the first 16 MiB of each are kept; a
    stream that was longer is marked as truncated. `ended_by` is what the agent ended the program
    for, such as "timeout"; it is empty if the program ended by itself. `confinement` is what held
    it and all that it started: "cgroup", "rlimits", or "" if it had neither limits nor a timeout.
    """

    exitcode: Optional[int] = None
    signal: Optional[int] = None
    stdout: Annotated[bytes, "out-data"] = b""
    stderr: Annotated[bytes, "err-data"] = b""
    stdout_truncated: Annotated[bool, "out-truncated"] = False
    stderr_truncated: Annotated[bool, "err-truncated"] = False
    ended_by: str = ""
    confinement: str = ""

    @property
    def status(self) -> int:
        """One number, as a shell has it: the exit code, or 128 + the signal."""
        if self.signal is not None:
            return SIGNAL_STATUS + self.signal
        return self.exitcode or 0

    @property
    def returncode(self) -> int:
        """One number, as in subprocess: the exit code, or minus the signal."""
        return returncode_of(self)

    def as_text(self) -> TextResult:
        """The same with its output decoded; what is not UTF-8 becomes U+FFFD."""
        out, err = (data.decode(errors="replace") for data in (self.stdout, self.stderr))
        return TextResult(*self._replace(stdout=out, stderr=err))  # type: ignore[arg-type]


class TextResult(NamedTuple):
    """An ExecResult whose output is text."""

    exitcode: Optional[int] = None
    signal: Optional[int] = None
    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    ended_by: str = ""
    confinement: str = ""

    @property
    def returncode(self) -> int:
        """As of ExecResult."""
        return returncode_of(self)


AnyResult = Union[ExecResult, TextResult]


def returncode_of(result: AnyResult) -> int:
    return (result.exitcode or 0) if result.signal is None else -result.signal


class OSInfo(NamedTuple):
    """Kernel (as from uname) and distribution (as from os-release) of the guest."""

    kernel_release: Optional[str] = None
    kernel_version: Optional[str] = None
    machine: Optional[str] = None
    id: Optional[str] = None
    name: Optional[str] = None
    pretty_name: Optional[str] = None
    version: Optional[str] = None
    version_id: Optional[str] = None
    variant: Optional[str] = None
    variant_id: Optional[str] = None


class Timezone(NamedTuple):
    """`offset` in seconds east of UTC, `zone` its abbreviation (CET) if the guest knows it."""

    offset: int
    zone: Optional[str] = None


class FileChunk(NamedTuple):
    """What one guest-file-read gave; `eof` if it came to the end of the file."""

    data: Annotated[bytes, "buf-b64"]
    eof: bool


class StartedProgram(NamedTuple):
    """Its process ID, and what holds it and all that it starts: see ExecResult."""

    pid: int
    confinement: str = ""


class ExecOutput(NamedTuple):
    """What a program has written from an offset on, and how it has ended, if so.

    `out_total` and `err_total` are the bytes so far, those that went to a data port included;
    they are final when `exited` is true. A stream is truncated where something that the program
    has left behind may still write to it.
    """

    exited: bool
    out_total: int
    err_total: int
    stdout: Annotated[bytes, "out-data"] = b""
    stderr: Annotated[bytes, "err-data"] = b""
    exitcode: Optional[int] = None
    signal: Optional[int] = None
    stdout_truncated: Annotated[bool, "out-truncated"] = False
    stderr_truncated: Annotated[bool, "err-truncated"] = False
    ended_by: str = ""


class FileTransfer(NamedTuple):
    """How many bytes of a file the guest has sent, received or read, and their checksum."""

    size: Annotated[int, "count"]
    sha256: str


class VsockPort(NamedTuple):
    """A data port over vsock that the agent has opened, by the number of its vsock port.

    `token`: what the host sends it first, with a newline.
    """

    name: str
    port: int
    token: str


class PortInfo(NamedTuple):
    """A virtio-serial port of the guest.

    `busy`: a program of the guest has it open; `host_connected`: one of the host has, if the
    guest can tell.
    """

    name: str
    device: str
    busy: bool
    host_connected: Optional[bool] = None


class FilePosition(NamedTuple):
    """Where a file is read or written next, in bytes from its start."""

    position: int
    eof: bool


class IPAddress(NamedTuple):
    """An address of an interface; `ip_address_type` is ipv4 or ipv6, `prefix` in bits."""

    ip_address: str
    ip_address_type: str
    prefix: int


class InterfaceStatistics(NamedTuple):
    """What an interface has received and sent since it came up."""

    rx_bytes: int
    rx_packets: int
    rx_errs: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errs: int
    tx_dropped: int


class NetworkInterface(NamedTuple):
    name: str
    hardware_address: Optional[str] = None
    ip_addresses: tuple[IPAddress, ...] = ()
    statistics: Optional[InterfaceStatistics] = None


class Route(NamedTuple):
    """A line of a routing table; `version` is 4 or 6.

    IPv4 has `mask` and `gateway`; IPv6 has `desprefixlen`, `nexthop`, `source`, `srcprefixlen`.
    """

    iface: str
    destination: str
    metric: int
    version: int
    gateway: Optional[str] = None
    mask: Optional[str] = None
    irtt: Optional[int] = None
    flags: Optional[int] = None
    refcnt: Optional[int] = None
    use: Optional[int] = None
    window: Optional[int] = None
    mtu: Optional[int] = None
    desprefixlen: Optional[str] = None
    source: Optional[str] = None
    srcprefixlen: Optional[str] = None
    nexthop: Optional[str] = None


class PCIAddress(NamedTuple):
    """-1 in each where the agent does not know."""

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
    """Where a disk sits in the machine."""

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
    """A disk, partition or volume; `dependencies` are the devices that it is made of."""

    name: str
    partition: bool
    dependencies: tuple[str, ...] = ()
    address: Optional[DiskAddress] = None
    alias: Optional[str] = None
    smart: Optional[DiskSmart] = None


class DiskCounters(NamedTuple):
    """Since the start; ticks are milliseconds, sectors 512 bytes."""

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
    """A block device, named as the kernel does (vda, without /dev/), and what it has done."""

    name: str
    major: int
    minor: int
    stats: DiskCounters


class FilesystemInfo(NamedTuple):
    """A mounted filesystem and the disks that it is on.

    `total_bytes` is what an ordinary user can fill, `total_bytes_privileged` what root can.
    """

    name: str
    mountpoint: str
    type: str
    disk: tuple[DiskAddress, ...] = ()
    used_bytes: Optional[int] = None
    total_bytes: Optional[int] = None
    total_bytes_privileged: Optional[int] = None


class FreezeState(NamedTuple):
    """frozen or thawed; for how many seconds, and in how many the agent thaws by itself."""

    status: str
    seconds: Optional[float] = None
    thaw_in: Optional[float] = None


class TrimResult(NamedTuple):
    """How many bytes of the filesystem at `path` went back to the host, or why none."""

    path: str
    trimmed: Optional[int] = None
    minimum: Optional[int] = None
    error: Optional[str] = None


class Processor(NamedTuple):
    logical_id: int
    online: bool
    can_offline: bool = False


class ProcessorTimes(NamedTuple):
    """What a processor has done since the start, in milliseconds."""

    cpu: int
    user: int
    nice: int
    system: int
    idle: int
    iowait: Optional[int] = None
    irq: Optional[int] = None
    softirq: Optional[int] = None
    steal: Optional[int] = None
    guest: Optional[int] = None
    guestnice: Optional[int] = None


class LoadAverage(NamedTuple):
    """How many processes wanted to run, on average over 1, 5 and 15 minutes."""

    load1m: float
    load5m: float
    load15m: float


class MemoryBlock(NamedTuple):
    phys_index: int
    online: bool
    can_offline: bool = False


class MemoryBlockResponse(NamedTuple):
    """How it went: success, not-found, operation-not-supported or operation-failed."""

    phys_index: int
    response: str
    error_code: Optional[int] = None


class User(NamedTuple):
    """Somebody who is logged in, since `login_time`, in seconds since 1970."""

    user: str
    login_time: float
    domain: Optional[str] = None
