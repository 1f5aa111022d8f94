"""The dashboard against Grafana's own schema: the types of grafana-foundation-sdk, for 11.6."""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ecosystem.prometheus import DASHBOARD

# It needs Python 3.11.
pytest.importorskip("grafana_foundation_sdk")

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

OURS: dict[str, Any] = json.loads(DASHBOARD.read_text())
ANY_CLASS = ConfigDict(arbitrary_types_allowed=True)


def faults(dashboard: dict[str, Any]) -> list[str]:
    """What Grafana's schema says against a dashboard."""
    register_default_plugins()
    parsed = Dashboard.from_json(dashboard)
    known = json.loads(JSONEncoder().encode(parsed))
    return [*unknown_fields(dashboard, known, ""), *wrong_values(parsed, "")]


def unknown_fields(given: Any, known: Any, place: str) -> Iterator[str]:
    """What the schema's classes have dropped."""
    if isinstance(given, dict):
        for name, value in given.items():
            if not isinstance(known, dict) or name not in known:
                yield f"{place}/{name} is unknown"
            else:
                yield from unknown_fields(value, known[name], f"{place}/{name}")
    elif isinstance(given, list):
        for at, value in enumerate(given):
            yield from unknown_fields(value, known[at], f"{place}/{at}")


def wrong_values(node: Any, place: str) -> Iterator[str]:
    """Values that are not of the type that the schema's class declares for them."""
    if isinstance(node, (list, dict)):
        for name, value in enumerate(node) if isinstance(node, list) else node.items():
            yield from wrong_values(value, f"{place}/{name}")
    elif type(node).__module__.startswith("grafana_foundation_sdk"):
        for name, hint in typing.get_type_hints(type(node)).items():
            value = getattr(node, name)
            try:
                adapter(hint).validate_python(value)
            except ValidationError as error:
                yield f"{place}/{name}: {error.errors()[0]['msg']}"
            yield from wrong_values(value, f"{place}/{name}")


def adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ANY_CLASS)
    except Exception:  # pydantic has its own idea of the configuration of some classes
        return TypeAdapter(hint)


def test_the_schema_has_nothing_against_the_dashboard() -> None:
    assert faults(OURS) == []


def set_at(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(dashboard: Any) -> None:
        for step in path[:-1]:
            dashboard = dashboard[step]
        dashboard[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_at("panels", 0, "titel", value="x"), "/panels/0/titel is unknown"),
        (set_at("panels", 0, "targets", 0, "query", value="x"), "/query is unknown"),
        (set_at("panels", 1, "gridPos", "x", value="left"), "/x: Input should be a valid integer"),
        (set_at("panels", 0, "options", "colorMode", value="x"), "color_mode: Input should be "),
        (set_at("templating", "list", 0, "type", value="x"), "Input should be 'query'"),
    ],
)
def test_the_schema_is_one(change: Callable[[Any], None], complaint: str) -> None:
    broken = copy.deepcopy(OURS)
    change(broken)
    assert [fault for fault in faults(broken) if complaint in fault]
