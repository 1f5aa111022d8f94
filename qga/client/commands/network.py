"""The guest's network interfaces and routes."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.results import NetworkInterface, Route


class Network(Connection):
    def interfaces(self) -> list[NetworkInterface]:
        """Each interface with its addresses and counters."""
        return self._ask("guest-network-get-interfaces", list[NetworkInterface])

    def routes(self) -> list[Route]:
        """The routing tables of IPv4 and IPv6. Agents before 9.1 do not have this."""
        return self._ask("guest-network-get-route", list[Route])
