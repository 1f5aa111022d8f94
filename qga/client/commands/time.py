"""The guest's clock and time zone."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.results import Timezone


class Time(Connection):
    def time(self) -> int:
        """The guest's clock, in nanoseconds since 1970-01-01 UTC."""
        return self._ask("guest-get-time", int)

    def set_time(self, nanoseconds: int | None = None) -> None:
        """Set the guest's clocks; without a time, its system clock from its hardware clock."""
        arguments = {} if nanoseconds is None else {"time": nanoseconds}
        self.call("guest-set-time", arguments)

    def timezone(self) -> Timezone:
        """The guest's offset from UTC."""
        return self._ask("guest-get-timezone", Timezone)
