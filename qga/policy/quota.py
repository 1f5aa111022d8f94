"""A counter for limited resources of each channel, safe to use from any thread."""

from __future__ import annotations

from _thread import allocate_lock


class Quota:
    """The amount taken by each channel."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._taken: dict[str, int] = {}

    def take(self, channel: str, amount: int, limit: int | None) -> bool:
        """Take the amount unless that exceeds `limit`; returns whether it was taken."""
        with self._lock:
            taken = self._taken.get(channel, 0) + amount
            if limit is not None and taken > limit:
                return False
            self._taken[channel] = taken
            return True

    def give(self, channel: str, amount: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken[channel] = self._taken.get(channel, 0) - amount

    def taken(self, channel: str) -> int:
        return self._taken.get(channel, 0)
