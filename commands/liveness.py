"""Synchronizing a connection, and checking that the agent responds."""

from __future__ import annotations

from qga import CommandGroup, command


class Liveness(CommandGroup):
    """Synchronization and ping."""

    @command(access="audit", frozen=True, overtakes=True)
    def guest_sync(self, id: int) -> int:
        """Return `id`, so that the client knows that no older reply follows.

        id: any number, preferably one that was not used before.
        """
        return id

    @command(access="audit", frozen=True, overtakes=True, delimited=True)
    def guest_sync_delimited(self, id: int) -> int:
        """Return `id` like guest-sync, with the byte 0xFF before the reply.

        id: any number, preferably one that was not used before.
        A client that discards everything up to the 0xFF has discarded all older replies.
        """
        return id

    @command(access="audit", frozen=True)
    def guest_ping(self) -> None:
        """Check that the agent responds; does nothing else."""
