"""Whether the guest is ready, waiting until it is, and its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from qga.client.connection import Connection
from qga.client.readiness import Readiness

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent
    from qga.client.data_ports import DataPorts
    from qga.client.waiting import Met, Report
    from qga.client.watching import Events, WatchStarted

# Seconds for the agent's own requests to systemd.
READINESS_PATIENCE = 14.0

# Seconds for qga-watch; the agent itself waits some seconds for the host to connect to the port.
WATCH_PATIENCE = 10.0

# Seconds for a guest to start.
WAIT_TIMEOUT = 300.0

# Seconds of silence after which a watch checks whether the agent still runs.
CHECK_INTERVAL = 300.0


class Waiting(Connection):
    def readiness(
        self,
        units: Sequence[str] = (),
        ports: Sequence[int] = (),
        *,
        timeout: float = READINESS_PATIENCE,
    ) -> Readiness:
        """Whether the guest has booted and its services are ready; requires qga in the guest.

        units: systemd units whose states to return. ports: TCP ports to check; those with a
        listening program are returned.
        """
        wanted: dict[str, Any] = {}
        if units:
            wanted["units"] = list(units)
        if ports:
            wanted["ports"] = list(ports)
        with self._lock:
            self.sync()  # an absent agent is reported soon
            return self._ask("qga-get-readiness", Readiness, timeout=timeout, **wanted)

    def wait_for(
        self, *conditions: str, timeout: float = WAIT_TIMEOUT, report: Report | None = None
    ) -> list[Met]:
        """Wait until each condition was met once. Works with any agent, even before it runs.

        conditions: "agent" (it answers), "boot" (finished), "cloud-init" (done), "address" (one
            that is not link-local), "unit:NAME" (active), "port:NUMBER" (a program listens on that
            TCP port), "file:PATH" (it exists); by default "agent".
        timeout: seconds.
        report: called with each condition that is not met, and the reason, whenever it changes.

        Returns the state of each condition, in the same order. Raises NotReady (a TimeoutError)
        with the conditions that are missing; NeverReady if waiting is useless, because cloud-init
        has failed or this agent cannot check a condition; and ValueError for unknown conditions.
        """
        from qga.client import waiting

        return waiting.wait_for(
            cast("GuestAgent", self), conditions or ("agent",), timeout, report or _ignore
        )

    def watch(
        self,
        *kinds: str,
        usage_interval: int | None = None,
        usage_percent: int = 90,
        ports: DataPorts | None = None,
        check: float = CHECK_INTERVAL,
    ) -> Events:
        """The guest's events as they happen; requires qga. Use it as a context manager.

        kinds: "address", "mount", "usage", "pressure", "oom", "session", "freeze"; by default all,
            usage only with `usage_interval`.
        usage_interval: seconds, at least 10, between two checks of the usage of filesystems.
        usage_percent: the usage above which a filesystem is reported.
        ports: the guest's data ports, one of which must be free; by default those found.
        check: seconds of silence after which to check whether the agent still runs.

            with guest.watch("address", "oom") as events:
                for event in events:
                    print(event.name, event.details)

        The watch continues after a restart of the agent. If this reader is too slow, events are
        dropped, and an event "dropped" contains their `count`.
        """
        from qga.client.data_ports import DataPorts
        from qga.client.watching import Events, Wanted

        wanted = Wanted(kinds or None, usage_interval, usage_percent)
        agent = cast("GuestAgent", self)
        return Events(agent, ports or DataPorts(self.address), wanted, check)

    def watch_start(
        self,
        port: str,
        kinds: Sequence[str] | None = None,
        usage_interval: int | None = None,
        usage_percent: int = 90,
    ) -> WatchStarted:
        """Make the agent write events to a data port, which must be connected; see `watch`."""
        from qga.client.watching import WatchStarted

        wanted: dict[str, Any] = {"port": port, "usage_percent": usage_percent}
        if kinds is not None:
            wanted["events"] = list(kinds)
        if usage_interval is not None:
            wanted["usage_interval"] = usage_interval
        with self._lock:
            self.sync()
            return self._ask("qga-watch", WatchStarted, timeout=WATCH_PATIENCE, **wanted)


def _ignore(_condition: str, _reason: str) -> None:
    """The default for `report`."""
