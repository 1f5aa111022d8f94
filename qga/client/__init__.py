"""The host's side: talk to the agent of a guest.

    from qga.client import GuestAgent, find_guests

    with GuestAgent("unix:/var/lib/libvirt/qemu/channel/target/guest.org.qemu.guest_agent.0") as agent:
        agent.ping()
        agent.osinfo().pretty_name
        agent.exec(["uname", "-a"]).stdout
        with agent.freeze():
            take_a_snapshot()
        agent.call("guest-file-open", path="/etc/hosts", mode="r")

    for guest in find_guests():      # those that run on this host, and are believed to
        with GuestAgent(guest) as agent:
            print(guest.name, agent.hostname())

AsyncGuestAgent has the same methods for asyncio.

Only the standard library is needed for this; `qgactl`, on top of it, needs typer and rich.
"""  # noqa: E501 - the path is one that libvirt makes

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qga.client.agent import GuestAgent
from qga.client.commands.freeze import Frozen
from qga.client.copies.copying import Observer, Summary, copy_from, copy_to
from qga.client.data_ports import DataPorts
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ConnectError,
    CopyError,
    FreezeEnded,
    GuestFrozen,
    NeverReady,
    NothingFrozen,
    NotQuiesced,
    NotReady,
    ProgramFailed,
    ProgramNotStarted,
    ProgramTimeout,
    ProtocolError,
    QueueFull,
    SnapshotFailed,
    ThawFailed,
)
from qga.client.hosts.discovery import FoundGuest, find_guests
from qga.client.hosts.trust import LeftOut
from qga.client.metrics import MemoryUse, Metrics
from qga.client.parallel import Outcome, each
from qga.client.program_options import Limits
from qga.client.programs import PlainProgram, StreamedProgram, TerminalSize, start_streamed
from qga.client.readiness import Readiness
from qga.client.restore import NewIdentity, RestoreStep, Resynced
from qga.client.results import (
    AgentInfo,
    CommandInfo,
    ExecResult,
    FileChunk,
    FilePosition,
    InterfaceStatistics,
    IPAddress,
    LoadAverage,
    MemoryBlock,
    MemoryBlockResponse,
    NetworkInterface,
    OSInfo,
    Processor,
    ProcessorTimes,
    Release,
    Route,
    TextResult,
    Timezone,
    User,
)
from qga.client.snapshots.record import Freeze, SkippedDisk, Snapshot, SnapshotDisk
from qga.client.storage import (
    DiskAddress,
    DiskCounters,
    DiskInfo,
    DiskStats,
    FilesystemInfo,
    FreezeParticipant,
    FreezeState,
    Growth,
    GrowthStep,
    TrimResult,
)
from qga.client.tunnels import GuestSocket, GuestTunnel, Target

if TYPE_CHECKING:
    from qga.client.async_agent import AsyncGuestAgent

__all__ = [
    "AgentError",
    "AgentInfo",
    "AgentTimeout",
    "AsyncGuestAgent",
    "CommandError",
    "CommandInfo",
    "CommandNotFound",
    "ConnectError",
    "CopyError",
    "DataPorts",
    "DiskAddress",
    "DiskCounters",
    "DiskInfo",
    "DiskStats",
    "ExecResult",
    "FileChunk",
    "FilePosition",
    "FilesystemInfo",
    "FoundGuest",
    "Freeze",
    "FreezeEnded",
    "FreezeParticipant",
    "FreezeState",
    "Frozen",
    "Growth",
    "GrowthStep",
    "GuestAgent",
    "GuestFrozen",
    "GuestSocket",
    "GuestTunnel",
    "IPAddress",
    "InterfaceStatistics",
    "LeftOut",
    "Limits",
    "LoadAverage",
    "MemoryBlock",
    "MemoryBlockResponse",
    "MemoryUse",
    "Metrics",
    "NetworkInterface",
    "NeverReady",
    "NewIdentity",
    "NotQuiesced",
    "NotReady",
    "NothingFrozen",
    "OSInfo",
    "Observer",
    "Outcome",
    "PlainProgram",
    "Processor",
    "ProcessorTimes",
    "ProgramFailed",
    "ProgramNotStarted",
    "ProgramTimeout",
    "ProtocolError",
    "QueueFull",
    "Readiness",
    "Release",
    "RestoreStep",
    "Resynced",
    "Route",
    "SkippedDisk",
    "Snapshot",
    "SnapshotDisk",
    "SnapshotFailed",
    "StreamedProgram",
    "Summary",
    "Target",
    "TerminalSize",
    "TextResult",
    "ThawFailed",
    "Timezone",
    "TrimResult",
    "User",
    "copy_from",
    "copy_to",
    "each",
    "find_guests",
    "start_streamed",
]


def __getattr__(name: str) -> Any:
    """Import asyncio only for those who use it."""
    if name != "AsyncGuestAgent":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qga.client.async_agent import AsyncGuestAgent

    return AsyncGuestAgent
