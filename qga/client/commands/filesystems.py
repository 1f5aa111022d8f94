"""The guest's mounted filesystems."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.results import FilesystemInfo, TrimResult

TRIM_PATIENCE = 3600.0
"""Seconds; a large disk takes long."""


class Filesystems(Connection):
    def filesystems(self) -> list[FilesystemInfo]:
        """Each filesystem on a block device, the last mounted first."""
        return self._ask("guest-get-fsinfo", list[FilesystemInfo])

    def trim(self, minimum: int = 0, *, timeout: float = TRIM_PATIENCE) -> list[TrimResult]:
        """Return unused blocks to the host, in runs of at least `minimum` bytes."""
        return self._ask_patiently(
            "guest-fstrim", list[TrimResult], "paths", timeout=timeout, minimum=minimum
        )
