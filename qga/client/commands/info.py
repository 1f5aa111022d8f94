"""Whether the agent answers, its version and its commands."""

from __future__ import annotations

import time

from qga.client.connection import Connection
from qga.client.errors import CommandNotFound
from qga.client.results import AgentInfo, Release

VERSION = "qga-get-version"


class Info(Connection):
    """guest-ping, guest-sync, guest-info and qga-get-version.

    guest-sync-delimited is `Connection.sync`.
    """

    def ping(self, *, timeout: float | None = None) -> float:
        """The time of one round trip in seconds."""
        start = time.perf_counter()
        self.call("guest-ping", timeout=timeout)
        return time.perf_counter() - start

    def echo(self, number: int) -> int:
        """The number that guest-sync returns, which is the one that was sent."""
        return self._ask("guest-sync", int, id=number)

    def info(self) -> AgentInfo:
        """The agent's version and its commands."""
        return self._ask("guest-info", AgentInfo)

    def release(self) -> Release | None:
        """The version of qga in the guest; None with another agent, and with qga 0.1."""
        try:
            return self._ask(VERSION, Release)
        except CommandNotFound:
            return None
