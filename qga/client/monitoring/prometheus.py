"""The metrics of guests for Prometheus: a collector, and the web server that it is scraped from.

A scrape asks all guests at once; one that does not answer in time has `qga_up 0`, and holds up
neither the scrape nor what the others say. Two scrapes at a time share the questions. Needs
prometheus-client.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any, Union
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from qga.client.monitoring.metrics import METRICS, Metric
from qga.client.monitoring.watch import Sighting, Watcher

PREFIX = "qga_"
UP = Metric("up", "Whether the guest's agent has answered.")
DURATION = Metric("scrape_duration_seconds", "How long the guest's agent took to answer.")
PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>qgactl exporter</title></head>
<body><h1>qgactl exporter</h1>
<p><a href="/metrics">Metrics</a> of the guests on this host, by their QEMU guest agents.</p>
</body></html>
"""
IDLE_LIMIT = 10  # seconds that a client may take for its request

Family = Union[CounterMetricFamily, GaugeMetricFamily]


class GuestCollector(Collector):
    """Asks the guests whenever it is collected.

    notice: told of each sighting.
    """

    def __init__(self, watcher: Watcher, notice: Callable[[Sighting], None]) -> None:
        self._watcher = watcher
        self._notice = notice

    def describe(self) -> Iterable[Family]:
        """Nothing, so that no guest is asked when the collector is registered."""
        return ()

    def collect(self) -> Iterator[Family]:
        families = {metric.name: family(metric) for metric in (UP, DURATION, *METRICS)}
        for sighting in self._watcher.look():
            self._notice(sighting)
            guest = sighting.target.name
            families[UP.name].add_metric([guest], float(sighting.readings is not None))
            families[DURATION.name].add_metric([guest], sighting.seconds)
            for (name, *labels), value in (sighting.readings or {}).items():
                families[name].add_metric([guest, *labels], value)
        yield from families.values()


def family(metric: Metric) -> Family:
    kind = CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily
    return kind(PREFIX + metric.name, metric.help, labels=("guest", *metric.labels))


class Server(ThreadingMixIn, WSGIServer):
    """Serves `/metrics`, and a page that leads there."""

    daemon_threads = True

    def __init__(self, host: str, port: int, collector: Collector) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        registry = CollectorRegistry()
        registry.register(collector)
        self._metrics: Any = make_wsgi_app(registry)
        super().__init__((host, port), Handler)
        self.set_app(self._answer)

    def server_bind(self) -> None:
        # Not WSGIServer's, which asks the name service for the host's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        found = environ["PATH_INFO"] == "/"
        status, content = ("200 OK", PAGE) if found else ("404 Not Found", b"See /metrics.\n")
        kind = "text/html; charset=utf-8" if found else "text/plain; charset=utf-8"
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(content)))])
        return [content]


class Handler(WSGIRequestHandler):
    timeout = IDLE_LIMIT

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each scrape is of no use to anybody."""
