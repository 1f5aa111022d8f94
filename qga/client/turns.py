"""Turns at a socket that serves one client at a time, as QEMU's sockets do.

The others wait in its queue, which the kernel lists. A client that polls its agent for long looks
there between two requests: if somebody waits, it disconnects and goes to the end of the queue. The
agent keeps what it has begun, because the channel stays the same. While nobody waits, nothing
changes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

# Seconds between two looks at the queue, and for which a turn therefore lasts at least.
LOOK = 0.5

# Seconds to wait for our turn, before the agent is asked as usual, which reports the reason.
PATIENCE = 3600.0


class Turns:
    """The turns of a client that polls its agent; nothing here waits."""

    def __init__(self, agent: GuestAgent) -> None:
        self._agent = agent
        self._looked = time.monotonic()
        self._left: float | None = None
        """When it gave up its turn to others, which have it now."""

    def give_way(self) -> None:
        """Let others have their turn, if some wait."""
        now = time.monotonic()
        if self._left is None and now - self._looked >= LOOK:
            self._looked = now
            if self._agent._give_way():
                self._left = now

    def leave(self) -> None:
        """Let others have the socket until the next request, which then waits for its turn."""
        self._agent._let_others_in()
        self._left = None

    def is_ours(self) -> bool:
        """Whether it is our turn; asks for it if not. Raises AgentError."""
        if self._left is None:
            return True
        now = time.monotonic()
        if not self._agent._has_turn() and now - self._left < PATIENCE:
            return False
        self._left, self._looked = None, now
        return True
