"""GuestAgent: the agent of one guest, as an object on the host.

Its methods come from the modules of qga.client.commands, one for each group of commands of
the agent; a command of another group gets its method in a module there, and is added here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qga.client.commands.disks import Disks
from qga.client.commands.exec import Exec
from qga.client.commands.files import Files
from qga.client.commands.filesystems import Filesystems
from qga.client.commands.freeze import Freezing
from qga.client.commands.info import Info
from qga.client.commands.memory import Memory
from qga.client.commands.metrics import Monitoring
from qga.client.commands.network import Network
from qga.client.commands.power import Power
from qga.client.commands.processors import Processors
from qga.client.commands.readiness import Waiting
from qga.client.commands.restore import Restore
from qga.client.commands.ssh import Ssh
from qga.client.commands.streams import Streams
from qga.client.commands.system import System
from qga.client.commands.time import Time
from qga.client.commands.transfer import Transfer
from qga.client.commands.tunnels import Tunnels
from qga.client.commands.users import Users

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from qga.client.copies.report import Observer
    from qga.client.data_ports import DataPorts
    from qga.client.snapshots.record import Snapshot
    from qga.client.tunnels import GuestSocket, GuestTunnel


class GuestAgent(
    Info,
    System,
    Restore,
    Time,
    Users,
    Ssh,
    Exec,
    Files,
    Disks,
    Freezing,
    Filesystems,
    Network,
    Processors,
    Memory,
    Monitoring,
    Waiting,
    Power,
    Streams,
    Transfer,
    Tunnels,
):
    """The agent at `address`, which is `unix:PATH`, another form of qga.client.addresses, or a
    guest of `find_guests`.

    `timeout` is how many seconds a call waits for its reply by default (math.inf: no limit), not
    counting the time of calls of other threads. Slow commands (freeze, trim) have longer timeouts.
    `max_reply` is the largest reply in bytes. Raises ValueError for an invalid address.

    Entering it as a context connects; otherwise the first call does. All methods raise the errors
    of qga.client.errors. Threads may share the object.
    """

    def tunnel(self, ports: DataPorts | None = None) -> GuestTunnel:
        """Open a tunnel for connections to services in the guest.

        `ports`: the guest's data ports, if they cannot be found automatically.
        """
        from qga.client.tunnels import GuestTunnel

        return GuestTunnel(self, ports)

    def snapshot(
        self,
        destination: str,
        *,
        disks: Sequence[str] = (),
        external: bool = False,
        format: str = "qcow2",
        qmp: str = "",
        unfrozen: Collection[str] = (),
        crash_consistent: bool = False,
        observer: Observer | None = None,
    ) -> Snapshot:
        """Copy the machine's disks into a new directory, as they are while the guest is frozen.

        The guest is frozen until the copy has started, and then thawed; QEMU goes on copying what
        the disks contained at that moment. `disks`: their names, by default all that can be written
        to and are not temporary. `external`: no copy, but new files to which the guest writes from
        now on, while the old ones stay as they are. `format` of the files: qcow2 or raw. `qmp`: the
        socket of QEMU's monitor, where it is not found by itself.

        Raises NotQuiesced unless all writable filesystems are frozen, except those mounted at
        `unfrozen`; with `crash_consistent` the snapshot is taken nevertheless. SnapshotFailed and
        ConnectError if it cannot be taken. After an error nothing is left of a copy.
        """
        from qga.client.snapshots.taking import How, take_snapshot

        how = How(disks, external, format, qmp, unfrozen, crash_consistent)
        with self._telling("snapshot"):
            return take_snapshot(self, destination, how, observer)

    def connect(
        self, host: str, port: int, *, timeout: float = 10.0, ports: DataPorts | None = None
    ) -> GuestSocket:
        """Connect to a TCP port, as seen from the guest.

        Returns a connected socket. No network is needed: the data passes through a free data port,
        or through the agent. Use `tunnel` for several connections. Raises ConnectError if the
        connection fails in the guest, CommandError if the guest refuses it, and AgentTimeout after
        `timeout` seconds.
        """
        from qga.client.tunnels import Target, connect

        return connect(self, Target(host, port), timeout, ports)

    def connect_unix(
        self, path: str, *, timeout: float = 10.0, ports: DataPorts | None = None
    ) -> GuestSocket:
        """Connect to a unix socket in the guest; otherwise like `connect`."""
        from qga.client.tunnels import Target, connect

        return connect(self, Target(path=path), timeout, ports)
