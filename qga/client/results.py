"""Replies as values with names and types.

The names are those on the wire, with `_` for `-`, except for a few that would be unclear;
docs/commands.md describes the commands. A field that is None or empty was not reported: the agent
is older, or the guest has no such thing. qga.client.conversion makes and checks them. Others are in
storage.py, metrics.py, readiness.py and restore.py.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, Optional, Union

# What a shell adds to the signal in the exit status of a program that was killed.
SIGNAL_STATUS = 128


class CommandInfo(NamedTuple):
    """A command of the agent. `success_response`: whether there is a reply on success."""

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
    longer stream is marked as truncated. `ended_by` is why the agent ended the program, such as
    "timeout"; it is empty if the program exited by itself. `confinement` is how its processes were
    confined: "cgroup", "rlimits", or "" if it had neither limits nor a timeout.
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
        """The exit code, or 128 + the signal, as in a shell."""
        if self.signal is not None:
            return SIGNAL_STATUS + self.signal
        return self.exitcode or 0

    @property
    def returncode(self) -> int:
        """The exit code, or minus the signal, as in subprocess."""
        return returncode_of(self)

    def as_text(self) -> TextResult:
        """The same with decoded output; invalid UTF-8 becomes U+FFFD."""
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
        """The same as ExecResult.returncode."""
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
    """The result of a guest-file-read; `eof`: whether it reached the end of the file."""

    data: Annotated[bytes, "buf-b64"]
    eof: bool


class StartedProgram(NamedTuple):
    """The process ID of a program, and its confinement: see ExecResult."""

    pid: int
    confinement: str = ""


class ExecOutput(NamedTuple):
    """The output of a program from an offset on, and its result if it has exited.

    `out_total` and `err_total` count all bytes so far, including those sent to a data port; they
    are final when `exited` is true. A stream is truncated if a background process of the program
    may still write to it.
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
    """A data port over vsock that the agent has opened.

    `token`: what the host must send first, followed by a newline.
    """

    name: str
    port: int
    token: str


class PortInfo(NamedTuple):
    """A virtio-serial port of the guest.

    `busy`: whether a program in the guest has it open; `host_connected`: whether one on the host
    has, if the guest knows.
    """

    name: str
    device: str
    busy: bool
    host_connected: Optional[bool] = None


class FilePosition(NamedTuple):
    """The position in an open file, in bytes from its beginning."""

    position: int
    eof: bool


class IPAddress(NamedTuple):
    """An address of an interface; `ip_address_type` is ipv4 or ipv6, `prefix` in bits."""

    ip_address: str
    ip_address_type: str
    prefix: int


class InterfaceStatistics(NamedTuple):
    """The counters of an interface."""

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


class Processor(NamedTuple):
    logical_id: int
    online: bool
    can_offline: bool = False


class ProcessorTimes(NamedTuple):
    """How a processor has spent its time since boot, in milliseconds."""

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
    """Load averages over 1, 5 and 15 minutes."""

    load1m: float
    load5m: float
    load15m: float


class MemoryBlock(NamedTuple):
    phys_index: int
    online: bool
    can_offline: bool = False


class MemoryBlockResponse(NamedTuple):
    """The result of a block: success, not-found, operation-not-supported or operation-failed."""

    phys_index: int
    response: str
    error_code: Optional[int] = None


class User(NamedTuple):
    """A logged-in user; `login_time` is in seconds since 1970-01-01 UTC."""

    user: str
    login_time: float
    domain: Optional[str] = None
