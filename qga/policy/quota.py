"""Counting what a channel may have only so much of, from any thread."""

from __future__ import annotations

from _thread import allocate_lock


class Quota:
    """What is taken, for each channel by its name."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._taken: dict[str, int] = {}

    def take(self, channel: str, amount: int, limit: int | None) -> bool:
        """Take the amount unless that makes more than `limit`; whether it was taken."""
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
