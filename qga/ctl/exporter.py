"""The metrics of guests, for Prometheus."""

import math
import re
import signal
from collections.abc import Sequence
from typing import Optional

import typer

from qga.client.errors import AgentTimeout
from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.watch import Sighting, Target, Watcher
from qga.client.texts import number_in
from qga.ctl import display
from qga.ctl.app import FAILED, command
from qga.ctl.command import ADVANCED
from qga.ctl.forwards import HIGHEST_PORT, why
from qga.ctl.guest_words import NOWHERE
from qga.ctl.settings import Settings
from qga.ctl.targets import HELP, Find, targets

LISTEN = "127.0.0.1:9741"
MOST_SERIES = 2000  # those of 128 processors, 50 filesystems, 30 disks
LONGEST_REASON = 300  # characters; parts of it come from the guest


@command(ADVANCED, NOWHERE)
def exporter(
    context: typer.Context,
    addresses: Optional[list[str]] = typer.Argument(None, metavar="[GUEST]...", help=HELP),
    listen: str = typer.Option(
        LISTEN,
        metavar="ADDR:PORT",
        help="Address and port to listen on; [::]:PORT is all interfaces.",
    ),
    series: int = typer.Option(
        MOST_SERIES, metavar="N", min=1, help="Limit on the series of each guest within an hour."
    ),
) -> None:
    """Serve the metrics of guests to Prometheus.

    Each scrape asks all guests at the same time and waits for each at most --timeout. Without
    arguments the guests are those that run on this host at that time. Guests with QEMU's agent
    have fewer metrics. Series beyond --series are dropped and counted in qga_series_left_out.
    /metrics?guest=web has one guest; /sd lists the guests for http_sd_configs. Anyone who can
    reach the port can read all metrics.

    \b
    Examples:
      qgactl exporter
      qgactl exporter --timeout 3 --listen [::]:9741
      qgactl exporter web db=unix:/run/db.sock
      curl http://127.0.0.1:9741/metrics
    """
    settings: Settings = context.obj
    find = targets(settings, addresses or [])
    host, port = place(listen)
    if settings.timeout == math.inf:  # Prometheus does not wait forever
        raise typer.BadParameter("exporter needs a finite --timeout")
    try:
        from qga.client.monitoring.prometheus import GuestCollector, Server
    except ModuleNotFoundError:
        display.say(
            "exporter requires the Python package 'prometheus-client': pip install 'qga[host]', "
            "or install python3-prometheus-client"
        )
        raise typer.Exit(FAILED) from None
    reporter = Reporter()
    watcher = Watcher(lambda: reporter.found(find), settings.timeout)
    collector = GuestCollector(watcher, reporter.seen, series)
    try:
        host.encode("idna")  # bind(2) of Python raises a TypeError
        server = Server(host, port, collector)
    except (OSError, UnicodeError) as error:
        display.say(f"cannot listen on {listen}: {why(error)}")
        raise typer.Exit(FAILED) from None
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{server.server_port}/metrics", flush=True)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that leaves ends only its connection
    with server:
        server.serve_forever()


class Reporter:
    """Reports changes on stderr, once each, since there is a scrape every few seconds.

    Neither guests nor other users of the host can make it write more.
    """

    def __init__(self) -> None:
        self._silent: set[str] = set()
        self._cut: set[str] = set()
        self._reasons: set[str] = set()

    def found(self, find: Find) -> list[Target]:
        """The guests; reports each reason for leaving some out once."""
        left_out = LeftOut()
        targets = find(left_out)
        names = {target.name for target in targets}
        self._silent &= names
        self._cut &= names
        for reason, line in left_out:
            if reason not in self._reasons:
                self._reasons.add(reason)
                display.note(line)
        return targets

    def seen(self, sightings: Sequence[tuple[Sighting, int]]) -> None:
        """Report who stopped answering, who answers again, and once who has too many series."""
        for sighting, left_out in sightings:
            name = sighting.target.name
            if sighting.readings is None and name not in self._silent:
                self._silent.add(name)
                display.say(f"{name}: {reason_of(sighting)}")
            elif sighting.readings is not None and name in self._silent:
                self._silent.discard(name)  # it may be gone: see found, on another thread
                display.say(f"{name}: answers again")
            if left_out and name not in self._cut:
                self._cut.add(name)
                display.say(f"{name}: has too many series; those beyond --series are left out")


def reason_of(sighting: Sighting) -> str:
    if isinstance(sighting.cause, AgentTimeout):
        return "does not answer in time"  # the reason has a number that is different each time
    return sighting.error[:LONGEST_REASON]


def place(listen: str) -> tuple[str, int]:
    """Host and port of ADDR:PORT."""
    found = re.fullmatch(r"\[([0-9a-fA-F:.]+)\]:([0-9]+)|([^:\[\]]*):([0-9]+)", listen)
    port = number_in(range(HIGHEST_PORT + 1), found[2] or found[4]) if found else None
    if not found or port is None:
        raise typer.BadParameter(f"'{listen}' is not ADDR:PORT, such as {LISTEN}")
    return found[1] or found[3] or "0.0.0.0", port  # noqa: S104 - it is what was asked for
