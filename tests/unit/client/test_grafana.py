"""The dashboard asks for nothing that the exporter does not have."""

from __future__ import annotations

import json
import re

import pytest

from qga.client.monitoring.metrics import METRICS
from qga.client.monitoring.prometheus import DURATION, PREFIX, UP
from tests.guest.image import CHECKOUT

DASHBOARD = json.loads((CHECKOUT / "packaging/grafana/qga.json").read_text())
QUERIES = [query["expr"] for panel in DASHBOARD["panels"] for query in panel["targets"]]
EXPORTED = {PREFIX + metric.name: {"guest", *metric.labels} for metric in (UP, DURATION, *METRICS)}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query(query: str) -> None:
    used = re.findall(r"\b(qga_\w+)\{([^}]*)\}(\[\$__rate_interval\])?", query)
    assert len(used) == query.count("qga_") > 0
    for name, selector, window in used:
        labels = set(re.findall(r"(\w+)(?:=~|!=|=)", selector))
        assert labels <= EXPORTED[name]
        assert 'guest=~"$guest"' in selector
        assert bool(window) == name.endswith("_total"), "rates are of counters"


def test_legends_name_labels_that_there_are() -> None:
    for panel in DASHBOARD["panels"]:
        for query in panel["targets"]:
            name = re.findall(r"qga_\w+", query["expr"])[0]
            assert set(re.findall(r"\{\{(\w+)\}\}", query["legendFormat"])) <= EXPORTED[name]


def test_panels_lie_side_by_side_and_have_numbers_of_their_own() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (place["x"] + right, place["y"] + down)
        for place in places
        for right in range(place["w"])
        for down in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_the_guests_can_be_chosen() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["guest"]["query"]["query"] == "label_values(qga_up, guest)"
    assert variables["datasource"]["query"] == "prometheus"
