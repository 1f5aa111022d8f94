"""Is anybody there, and are we talking about the same thing?"""

from __future__ import annotations

from qga import CommandGroup, command


class Liveness(CommandGroup):
    """Synchronising a connection, and asking for a sign of life."""

    @command(access="audit", frozen=True, overtakes=True)
    def guest_sync(self, id: int) -> int:
        """Give `id` back: what comes after this reply answers what was sent after this request.

        id: any number; best one that was not used before.
        """
        return id

    @command(access="audit", frozen=True, overtakes=True, delimited=True)
    def guest_sync_delimited(self, id: int) -> int:
        """As guest-sync, with the byte 0xFF before the reply.

        id: any number; best one that was not used before.
        A client that reads up to the 0xFF has left behind whatever stood in the channel.
        """
        return id

    @command(access="audit", frozen=True)
    def guest_ping(self) -> None:
        """Do nothing, successfully."""
