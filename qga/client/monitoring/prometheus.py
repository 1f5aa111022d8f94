"""The metrics of guests for Prometheus: a collector and a web server. Needs prometheus-client.

The server of prometheus-client itself limits neither the number of clients nor their time.

A scrape asks all guests at once. A guest that does not answer in time has `qga_up 0` and delays
neither the scrape nor the other guests. Simultaneous scrapes share the requests to the guests.
`/metrics?guest=NAME` asks only that guest, and `/sd` lists such a target for each guest, for
Prometheus's http_sd_configs.

A guest chooses its labels, and Prometheus keeps every series that it has ever seen. What must stay
true: a guest cannot create more series than `Admission` permits, whatever labels it sends.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Lock
from typing import Any, NamedTuple, Union
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from qga.client.monitoring.handler import Handler
from qga.client.monitoring.metrics import METRICS, Metric, Readings
from qga.client.monitoring.watch import Sighting, Watcher
from qga.client.sockets import pause_without_resources
from qga.client.texts import reason_of

PREFIX = "qga_"
UP = Metric("up", "Whether the guest's agent answered.")
DURATION = Metric("scrape_duration_seconds", "Time that the guest's agent took to answer.")
LEFT_OUT = Metric("series_left_out", "Series of the guest that exceed the limit and are left out.")
MEMORY = 3600.0  # seconds for which a series that is no longer reported still counts
PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>qgactl exporter</title></head>
<body><h1>qgactl exporter</h1>
<p><a href="/metrics">Metrics</a> of the guests on this host, by their QEMU guest agents.</p>
<p><a href="/sd">Targets</a> for http_sd_configs, one for each guest.</p>
</body></html>
"""
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z._-]+)(:[0-9]+)?")  # of a request
MOST_CLIENTS = 32  # at a time; the page for each may have megabytes

Family = Union[CounterMetricFamily, GaugeMetricFamily]


class NoSuchGuest(LookupError):
    """The requested guest does not run here."""


class Shown(NamedTuple):
    """The state of a guest, and the number of its series that were left out."""

    sighting: Sighting
    left_out: int


class Admission:
    """Limits the series of each guest to `most` different ones within an hour.

    Otherwise a guest that sends new labels at every scrape could fill Prometheus's memory.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Hashes of keys, least recent first: a key itself has some hundred characters.
        self._seen: dict[str, OrderedDict[int, float]] = {}

    def admit(self, guest: str, readings: Readings, now: float) -> Readings:
        seen = self._seen.setdefault(guest, OrderedDict())
        admitted = {}
        # Metrics without labels first: they are few and matter most.
        for key, value in sorted(readings.items(), key=lambda item: len(item[0]) > 1):
            number = hash(key)
            if number in seen or len(seen) < self._most:
                seen[number] = now
                seen.move_to_end(number)
                admitted[key] = value
        return admitted

    def forget(self, now: float) -> None:
        """Drop series that have not been reported for an hour, and guests without any."""
        for guest, seen in list(self._seen.items()):
            while seen and next(iter(seen.values())) < now - MEMORY:
                seen.popitem(last=False)
            if not seen:
                del self._seen[guest]


class GuestCollector(Collector):
    """Asks the guests at each scrape.

    most: number of series per guest. notice: called with the results of each scrape.
    """

    def __init__(self, watcher: Watcher, notice: Callable[[list[Shown]], None], most: int) -> None:
        self._watcher = watcher
        self._notice = notice
        self._admission = Admission(most)
        self._lock = Lock()

    def describe(self) -> Iterable[Family]:
        """Nothing, so that no guest is asked when the collector is registered."""
        return ()

    def names(self) -> list[str]:
        """The labels of the guests. None is asked."""
        return [valid(target.name) for target in self._watcher.targets()]

    def collect(self) -> Iterator[Family]:
        return self._families(self._watcher.look())

    def collect_from(self, guest: str) -> Iterator[Family]:
        """The metrics of the guest with that label. Raises NoSuchGuest."""
        sightings = self._watcher.look(chosen=lambda target: valid(target.name) == guest)
        if not sightings:
            raise NoSuchGuest
        return self._families(sightings)

    def _families(self, sightings: list[Sighting]) -> Iterator[Family]:
        families = {metric.name: family(metric) for metric in (UP, DURATION, LEFT_OUT, *METRICS)}
        shown = []
        with self._lock:
            self._admission.forget(time.monotonic())
            for sighting in sightings:
                left_out = self._add(families, sighting)
                shown.append(Shown(sighting, left_out))
            self._notice(shown)
        yield from families.values()

    def _add(self, families: dict[str, Family], sighting: Sighting) -> int:
        """Return how many series were left out."""
        guest = valid(sighting.target.name)
        families[UP.name].add_metric([guest], float(sighting.readings is not None))
        families[DURATION.name].add_metric([guest], sighting.seconds)
        if sighting.readings is None:
            return 0
        admitted = self._admission.admit(guest, sighting.readings, sighting.at)
        for (name, *labels), value in admitted.items():
            families[name].add_metric([guest, *labels], value)
        left_out = len(sighting.readings) - len(admitted)
        families[LEFT_OUT.name].add_metric([guest], left_out)
        return left_out


class OneGuest(Collector):
    """Asks only the guest with that label."""

    def __init__(self, guests: GuestCollector, guest: str) -> None:
        self._guests = guests
        self._guest = guest

    def describe(self) -> Iterable[Family]:
        return ()

    def collect(self) -> Iterator[Family]:
        return self._guests.collect_from(self._guest)


def page_of(collector: Collector) -> Any:
    """A WSGI application."""
    registry = CollectorRegistry()
    registry.register(collector)
    return make_wsgi_app(registry)


def scrape_targets(place: str, guests: Iterable[str]) -> bytes:
    """One target for each guest at `place`, ADDR:PORT, for Prometheus's http_sd_configs.

    The address is that of the exporter, so the guest becomes the label `instance`.
    """
    listed = [
        {
            "targets": [place],
            "labels": {"instance": guest, "__param_guest": guest, "__meta_qga_guest": guest},
        }
        for guest in guests
    ]
    return json.dumps(listed).encode()


def valid(text: str) -> str:
    """As valid UTF-8, which Prometheus requires and QEMU's arguments may not be."""
    return text.encode("utf-8", "backslashreplace").decode()


def family(metric: Metric) -> Family:
    kind = CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily
    return kind(PREFIX + metric.name, metric.help, labels=("guest", *metric.labels))


class Answer(NamedTuple):
    """A page, if it is not of prometheus-client."""

    status: str
    content: bytes
    kind: str = "text/plain"

    def send(self, start_response: Any) -> Iterable[bytes]:
        headers = [("Content-Type", f"{self.kind}; charset=utf-8")]
        start_response(self.status, [*headers, ("Content-Length", str(len(self.content)))])
        return [self.content]


class Server(ThreadingMixIn, WSGIServer):
    """Serves `/metrics`, `/metrics?guest=NAME`, `/sd`, and a page with links to them."""

    daemon_threads = True

    def __init__(self, host: str, port: int, collector: GuestCollector) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._collector = collector
        self._metrics = page_of(collector)
        self._places = BoundedSemaphore(MOST_CLIENTS)
        super().__init__((host, port), Handler)
        self.set_app(self._answer)

    def server_bind(self) -> None:
        # WSGIServer's own method asks the name service for the host's name, which may take long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError as error:
            pause_without_resources(error)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # there can be no more threads
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: any client can connect and send nothing, or disconnect."""

    def _answer(self, request: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            return self._page(request, start_response)
        except NoSuchGuest:
            answer = Answer("404 Not Found", b"no guest of this name; /sd lists those that run\n")
        except Exception as error:  # the server must survive for the next scrape
            text = f"{reason_of(error)}\n".encode(errors="backslashreplace")
            answer = Answer("500 Internal Server Error", text)
        return answer.send(start_response)

    def _page(self, request: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = request["PATH_INFO"]
        if path == "/metrics":
            query = parse_qs(request["QUERY_STRING"], keep_blank_values=True)
            guests = query.get("guest", [])
            # Several would be one target with one `instance`.
            if len(guests) > 1:
                answer = Answer("400 Bad Request", b"give one guest, or none for all\n")
            elif "name[]" in query:
                answer = Answer("400 Bad Request", b"name[] is not supported; leave it out\n")
            else:
                page = page_of(OneGuest(self._collector, guests[0])) if guests else self._metrics
                metrics: Iterable[bytes] = page(request, start_response)
                return metrics
        elif path == "/sd":
            content = scrape_targets(self._place(request), self._collector.names())
            answer = Answer("200 OK", content, "application/json")
        elif path == "/":
            answer = Answer("200 OK", PAGE, "text/html")
        else:
            answer = Answer("404 Not Found", b"See /metrics.\n")
        return answer.send(start_response)

    def _place(self, request: dict[str, Any]) -> str:
        """The address by which the client has reached this server."""
        host = request.get("HTTP_HOST", "")
        if HOST.fullmatch(host):
            return str(host)
        host = request["SERVER_NAME"]
        return f"[{host}]:{self.server_port}" if ":" in host else f"{host}:{self.server_port}"
