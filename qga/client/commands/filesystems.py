"""The guest's mounted filesystems."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.storage import FilesystemInfo, Growth, TrimResult

TRIM_PATIENCE = 3600.0
"""Seconds; a large disk takes long."""

GROWTH_PATIENCE = 9000.0
"""Seconds: the agent's 30 minutes for each of five tools."""


class Filesystems(Connection):
    def filesystems(self, *, timeout: float | None = None) -> list[FilesystemInfo]:
        """Each filesystem on a block device, the last mounted first."""
        return self._ask("guest-get-fsinfo", list[FilesystemInfo], timeout=timeout)

    def trim(self, minimum: int = 0, *, timeout: float = TRIM_PATIENCE) -> list[TrimResult]:
        """Return unused blocks to the host, in runs of at least `minimum` bytes."""
        return self._ask_patiently(
            "guest-fstrim", list[TrimResult], "paths", timeout=timeout, minimum=minimum
        )

    def grow_filesystem(
        self,
        mountpoint: str,
        *,
        dry_run: bool = False,
        passphrase: str | None = None,
        timeout: float = GROWTH_PATIENCE,
    ) -> Growth:
        """Grow a filesystem, and what it lies on, to fill a disk that was made larger.

        dry_run: only report the steps.
        passphrase: of its LUKS2 volume, if the kernel keeps the key.
        Raises CommandError if a step would fail, and then nothing was changed.
        """
        secret = {} if passphrase is None else {"passphrase": passphrase}
        return self._ask_patiently(
            "qga-grow-filesystem",
            Growth,
            timeout=timeout,
            mountpoint=mountpoint,
            dry_run=dry_run,
            **secret,
        )
