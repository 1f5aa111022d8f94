"""A real Prometheus of Debian on a port of localhost, and the queries of the dashboard for it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.ecosystem.ports import free_port
from tests.guest.image import CHECKOUT

DASHBOARD = CHECKOUT / "packaging/grafana/qga.json"
FETCH = [str(CHECKOUT / "packaging/fetch-program"), "bookworm", "prometheus", "usr/bin/prometheus"]
PATIENCE = 60.0
INTERVAL = 3
"""Seconds between two scrapes."""
WINDOW = "15s"
"""What Grafana takes for $__rate_interval: at least four scrapes, and one more."""

CONFIGURATION = """\
global:
  scrape_interval: {interval}s
  scrape_timeout: {interval}s
scrape_configs:
  - job_name: guests
    http_sd_configs:
      - url: {exporter}/sd
        refresh_interval: {interval}s
"""

Result = list[dict[str, Any]]


class Query(NamedTuple):
    """One of a panel's, with the dashboard's variables filled in."""

    panel: str
    expression: str
    legend: str
    unit: str


def dashboard_queries() -> list[Query]:
    """For all guests."""
    return [
        Query(
            panel["title"],
            each["expr"].replace("$__rate_interval", WINDOW).replace("$guest", ".+"),
            each["legendFormat"],
            panel["fieldConfig"]["defaults"]["unit"],
        )
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for each in panel["targets"]
    ]


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> Result:
        """The series, each with its `metric` and its `value`."""
        found: Result = self.get("query", query=expression)["result"]
        return found

    def history(self, expression: str, start: float, end: float) -> Result:
        """The series, each with its `metric` and its `values`."""
        times = {"start": f"{start}", "end": f"{end}", "step": f"{INTERVAL}"}
        found: Result = self.get("query_range", query=expression, **times)["result"]
        return found

    def wait_for(self, expression: str) -> Result:
        """The series, as soon as there are any."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := self.query(expression):
                return found
            time.sleep(0.5)
        raise AssertionError(f"no data for {expression}: {self.get('targets')}")


@contextmanager
def prometheus(exporter: str, folder: Path) -> Iterator[Prometheus]:
    """Scrapes the guests that the exporter at that URL lists. Its data is kept in `folder`."""
    program = subprocess.run(FETCH, capture_output=True, text=True, check=True).stdout.strip()
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(interval=INTERVAL, exporter=exporter))
    place = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options, f"--web.listen-address={place}"], stdout=log, stderr=log
        )
    try:
        wait_until_ready(f"http://{place}/-/ready", process, folder / "prometheus.log")
        yield Prometheus(f"http://{place}")
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
