"""Is the agent there, and what can it do?"""

from __future__ import annotations

import time

from qga.client.connection import Connection
from qga.client.results import AgentInfo


class Info(Connection):
    """guest-ping, guest-sync, guest-info; guest-sync-delimited is `Connection.sync`."""

    def ping(self, *, timeout: float | None = None) -> float:
        """The time of one round trip in seconds."""
        start = time.perf_counter()
        self.call("guest-ping", timeout=timeout)
        return time.perf_counter() - start

    def echo(self, number: int) -> int:
        """The number that guest-sync gives back: the one that it was given."""
        return self._ask("guest-sync", int, id=number)

    def info(self) -> AgentInfo:
        """The agent's version and its commands."""
        return self._ask("guest-info", AgentInfo)
