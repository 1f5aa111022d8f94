"""Whether the guest is ready, waiting until it is, and what happens in it."""

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

# Seconds for qga-watch: the agent itself waits for some until the host has connected to the port.
WATCH_PATIENCE = 10.0

# Seconds for a guest to start.
WAIT_TIMEOUT = 300.0

# Seconds of silence after which a watch asks whether the agent is still there.
CHECK_INTERVAL = 300.0


class Waiting(Connection):
    def readiness(
        self,
        units: Sequence[str] = (),
        ports: Sequence[int] = (),
        *,
        timeout: float = READINESS_PATIENCE,
    ) -> Readiness:
        """How far the guest is with its start; of our agent only.

        units: units of systemd whose states are wanted. ports: TCP ports, of which those on which a
        program accepts connections are returned.
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
        """Wait until each of these was seen to be so, with any agent, also one not yet there.

        conditions: "agent" (it answers), "boot" (finished), "cloud-init" (done), "address" (one
            beyond the link), "unit:NAME" (active), "port:NUMBER" (a program listens on that TCP
            port), "file:PATH" (it exists); by default "agent".
        timeout: seconds.
        report: called with each condition that is not met, and why, whenever that changes.

        Returns what was seen of each, in their order. Raises NotReady (a TimeoutError), which says
        what is missing, or NeverReady if waiting is no use, because cloud-init has failed or the
        agent may not tell. ValueError for anything else than such conditions.
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
        """What happens in the guest, as it happens; of our agent only. Use it as a context manager.

        kinds: "address", "mount", "usage", "pressure", "oom", "session", "freeze"; by default all,
            usage only with `usage_interval`.
        usage_interval: seconds, at least 10, between two looks at how full filesystems are.
        usage_percent: from which usage a filesystem is reported.
        ports: the guest's data ports, one of which must be free; by default those found.
        check: seconds of silence after which the agent is asked whether it is still there.

            with guest.watch("address", "oom") as events:
                for event in events:
                    print(event.name, event.details)

        If the agent restarts, the watch continues. Between two events there may have been more that
        this reader was too slow for: then "dropped" is one, with their `count`.
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
        """Have the agent write events to a data port, connected already; see `watch`."""
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
    """No report is wanted."""
