"""The guest's clock and time zone."""

from __future__ import annotations

import time

from qga.client.connection import Connection
from qga.client.results import Timezone

SECOND = 10**9  # nanoseconds


class Time(Connection):
    def time(self) -> int:
        """The guest's clock, in nanoseconds since 1970-01-01 UTC."""
        return self._ask("guest-get-time", int)

    def time_ahead(self) -> float:
        """By how many seconds the guest's clock is ahead of this host's.

        It is taken to have been read halfway between request and reply.
        """
        # The round trip to a guest may take longer than its clock is wrong.
        before = time.time_ns()
        there = self.time()
        after = time.time_ns()
        return (there - (before + after) // 2) / SECOND

    def set_time(self, nanoseconds: int | None = None) -> None:
        """Set the guest's clocks; without a time, its system clock from its hardware clock."""
        arguments = {} if nanoseconds is None else {"time": nanoseconds}
        self.call("guest-set-time", arguments)

    def timezone(self) -> Timezone:
        """The guest's offset from UTC."""
        return self._ask("guest-get-timezone", Timezone)
