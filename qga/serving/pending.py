"""The requests of a connection that were read but not carried out yet."""

from __future__ import annotations

from qga.stdlib import deque
from qga.wire.protocol import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from qga.plugin.registry import Registry
    from qga.wire.protocol import Event

MAX_REQUESTS = 1024
"""Requests that may wait before reading stops."""

MAX_INPUT = 64 * 1024 * 1024
"""Bytes that may be read while a command runs before reading stops."""


class Pending:
    """A queue, and how much was read for it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._events: deque[Event] = deque()
        self.overtaking = 0
        """How many of them limit the wait for a running command."""
        self.size = 0
        """Bytes read since everything was last answered."""

    def __len__(self) -> int:
        return len(self._events)

    def add(self, events: Sequence[Event], size: int) -> None:
        """Add the events that `size` bytes contained."""
        self._events += events
        self.overtaking += sum(map(self._overtakes, events))
        self.size += size

    def take(self) -> Event:
        event = self._events.popleft()
        if self.overtaking:
            self.overtaking -= self._overtakes(event)
        return event

    def drop_overtaken(self) -> int:
        """Drop the requests before the first one that overtakes, and return their number."""
        dropped = 0
        while not self._overtakes(self._events[0]):
            self._events.popleft()
            dropped += 1
        return dropped

    def is_full(self, running: bool) -> bool:
        """Whether to stop reading, while a command runs or without one."""
        return len(self._events) > MAX_REQUESTS or (running and self.size > MAX_INPUT)

    def _overtakes(self, event: Event) -> bool:
        if not isinstance(event, Request):
            return False
        command = self._registry.get(event.execute)
        return command is not None and command.overtakes
