"""The metrics of this host's guests, for Prometheus to fetch."""

import re
from typing import Optional

import typer

from qga.client.monitoring.watch import Sighting, Watcher
from qga.ctl import display
from qga.ctl.app import FAILED, Settings, app, finite
from qga.ctl.targets import HELP, targets

LISTEN = "127.0.0.1:9741"


@app.command()
def exporter(
    context: typer.Context,
    addresses: Optional[list[str]] = typer.Argument(None, metavar="ADDRESS", help=HELP),
    listen: str = typer.Option(
        LISTEN, metavar="ADDR:PORT", help="Where Prometheus fetches; [::]:PORT is everywhere."
    ),
) -> None:
    """Serve the metrics of guests to Prometheus, until it is interrupted.

    The guests are asked when Prometheus asks, all at once; each has --timeout seconds. Those of
    this host are found anew each time. Who may reach the port may see the metrics. Guests with
    the original agent show what that has.

    \b
    Examples:
      qgactl exporter
      qgactl --timeout 3 exporter --listen [::]:9741
      qgactl exporter web db=unix:/run/db.sock
      curl http://127.0.0.1:9741/metrics
    """
    settings: Settings = context.obj
    find = targets(settings, addresses or [])
    host, port = place(listen)
    finite(settings.timeout)  # Prometheus does not wait for ever
    try:
        from qga.client.monitoring.prometheus import GuestCollector, Server
    except ModuleNotFoundError:
        display.say(
            "exporter needs the Python package 'prometheus-client': pip install 'qga[host]', "
            "or install python3-prometheus-client"
        )
        raise typer.Exit(FAILED) from None
    collector = GuestCollector(Watcher(find, settings.timeout), Reporter())
    try:
        server = Server(host, port, collector)
    except OSError as error:
        display.say(f"cannot listen on {listen}: {error.strerror}")
        raise typer.Exit(FAILED) from None
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{server.server_port}/metrics", flush=True)
    with server:
        server.serve_forever()


class Reporter:
    """Tells when a guest falls silent, and when it is back."""

    def __init__(self) -> None:
        self._errors: dict[str, str] = {}

    def __call__(self, sighting: Sighting) -> None:
        name = sighting.target.name
        if sighting.error == self._errors.get(name, ""):
            return
        self._errors[name] = sighting.error
        display.say(f"{name}: {sighting.error or 'answers again'}")


def place(listen: str) -> tuple[str, int]:
    """Host and port of ADDR:PORT."""
    found = re.fullmatch(r"\[([0-9a-fA-F:.]+)\]:([0-9]+)|([^:\[\]]*):([0-9]+)", listen)
    port = int(found[2] or found[4]) if found else -1
    if not found or port not in range(2**16):
        raise typer.BadParameter(f"'{listen}' is not ADDR:PORT, such as {LISTEN}")
    return found[1] or found[3] or "0.0.0.0", port  # noqa: S104 - it is what was asked for
