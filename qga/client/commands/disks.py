"""The guest's block devices."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.storage import DiskInfo, DiskStats


class Disks(Connection):
    def disks(self) -> list[DiskInfo]:
        """Each disk, partition and volume, with its members, its address and its health."""
        return self._ask("guest-get-disks", list[DiskInfo])

    def disk_stats(self) -> list[DiskStats]:
        """The counters of each block device."""
        return self._ask("guest-get-diskstats", list[DiskStats])
