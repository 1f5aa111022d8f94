"""The guest's operating system and host name."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.results import OSInfo


class System(Connection):
    def osinfo(self) -> OSInfo:
        """Kernel and distribution of the guest."""
        return self._ask("guest-get-osinfo", OSInfo)

    def hostname(self) -> str:
        """The guest's host name."""
        return self._ask("guest-get-host-name", str, "host-name")
