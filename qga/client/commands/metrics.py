"""Figures for monitoring, reported by qga only."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.metrics import MemoryUse, Metrics


class Monitoring(Connection):
    def memory(self) -> MemoryUse:
        """The memory and the swap space."""
        return self._ask("qga-get-memory", MemoryUse)

    def metrics(self) -> Metrics:
        """Processors, memory, load, pressure, filesystems, disks, network and processes at once."""
        return self._ask("qga-get-metrics", Metrics)
