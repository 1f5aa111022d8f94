"""Whose turn it is, while connections have more to do than fits into one turn.

What must stay true: a channel waits for one turn of each other channel, however many connections
the others have, and events are handled between any two turns.
"""

from __future__ import annotations

from qga.stdlib import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.loop import Loop
    from qga.serving.session import Session


class Turns:
    """Gives each channel a turn, and within a channel each connection."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[str, deque[Session]] = {}  # by channel, the next one first

    def wait(self, session: Session) -> None:
        """Call `take_turn` of a connection when it is its turn."""
        if not self._waiting:
            self._loop.post(self._give)
        self._waiting.setdefault(session.caller.channel, deque()).append(session)

    def _give(self) -> None:
        channel = next(iter(self._waiting))
        sessions = self._waiting.pop(channel)
        session = sessions.popleft()
        if sessions:
            self._waiting[channel] = sessions  # after the others
        if self._waiting:
            self._loop.post(self._give)
        session.take_turn()
