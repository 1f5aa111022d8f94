"""Debian's Prometheus finds the guests by http_sd, and every panel of the dashboard has data."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.ecosystem.observed import GUESTS, OURS, THEIRS, Observed, observed
from tests.ecosystem.prometheus import WINDOW, Query, dashboard_queries
from tests.host.day import Day

pytestmark = pytest.mark.timeout(900)

ONLY_OURS = ("pressure", "memory", "swap", "processes", "files_free")
"""Parts of names of metrics that QEMU's agent does not have."""


@pytest.fixture(scope="module")
def them(web: Day, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with observed(web, tmp_path_factory.mktemp("observed")) as all_of_them:
        # Rates need a few scrapes of each.
        for guest in GUESTS:
            all_of_them.prometheus.wait_for(
                f'rate(qga_cpu_seconds_total{{guest="{guest}"}}[{WINDOW}])'
            )
        yield all_of_them


def fetch(address: str, **headers: str) -> str:
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        text: str = response.read().decode()
        return text


def test_each_guest_is_a_target_of_its_own(them: Observed) -> None:
    targets = them.prometheus.get("targets", state="active")["activeTargets"]
    assert {each["labels"]["instance"] for each in targets} == GUESTS
    assert {each["health"] for each in targets} == {"up"}
    scraped = {each["labels"]["instance"]: each["scrapeUrl"] for each in targets}
    assert scraped["web"] == f"{them.exporter}/metrics?guest=web"
    for guest in GUESTS:
        [series] = them.prometheus.query(f'qga_up{{instance="{guest}"}}')
        assert (series["metric"]["guest"], series["value"][1]) == (guest, "1")


@pytest.mark.parametrize("query", dashboard_queries(), ids=lambda query: query.expression[:60])
def test_a_panel_has_data_of_the_guests(them: Observed, query: Query) -> None:
    series = them.prometheus.wait_for(query.expression)
    guests = {each["metric"]["guest"] for each in series}
    assert {"web", OURS} <= guests
    if any(part in query.expression for part in ONLY_OURS):
        assert THEIRS not in guests


def test_a_guest_alone_has_only_its_own_metrics(them: Observed) -> None:
    lines = fetch(f"{them.exporter}/metrics?guest={OURS}").splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert len(samples) > 50
    assert all(f'guest="{OURS}"' in line for line in samples)


def test_a_guest_that_is_not_there(them: Observed) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{them.exporter}/metrics?guest=nobody")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        fetch(f"{them.exporter}/metrics?guest=web&guest={OURS}")


@pytest.mark.parametrize(
    ("host", "place"),
    [("host1.example.com:9741", "host1.example.com:9741"), ("[fe80::1]:9741", "[fe80::1]:9741")],
)
def test_targets_have_the_address_that_prometheus_has_used(
    them: Observed, host: str, place: str
) -> None:
    listed = json.loads(fetch(f"{them.exporter}/sd", Host=host))
    assert {target for each in listed for target in each["targets"]} == {place}


def test_a_host_that_is_no_address_is_not_passed_on(them: Observed) -> None:
    listed = json.loads(fetch(f"{them.exporter}/sd", Host="evil/<script>"))
    places = {target for each in listed for target in each["targets"]}
    assert places == {them.exporter.removeprefix("http://")}
