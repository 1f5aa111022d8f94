"""Limits, states and the line of qgactl check."""

from __future__ import annotations

import pytest

from qga.client.monitoring.usage import Level
from qga.ctl.check import Limits, Result, State, line_of, parse_limits, share_result


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("90%", Limits(None, 90)),
        ("90", Limits(None, 90)),
        ("80%:90%", Limits(80, 90)),
        ("0.5:1.5", Limits(0.5, 1.5)),
        ("90:90", Limits(90, 90)),
    ],
)
def test_limits(text: str, limits: Limits) -> None:
    assert parse_limits(text) == limits


@pytest.mark.parametrize("text", ["", "x", "90:80", "-1", "nan", "inf", "1:2:3", ":90", "90:", "%"])
def test_what_are_no_limits(text: str) -> None:
    with pytest.raises(ValueError):
        parse_limits(text)


@pytest.mark.parametrize(
    ("used", "state"), [(79, "OK"), (80, "WARNING"), (89.9, "WARNING"), (90, "CRITICAL")]
)
def test_a_value_at_a_limit_exceeds_it(used: float, state: str) -> None:
    result = share_result("/", Level(used, 100), Limits(80, 90))
    assert result.state.name == state
    assert result.figure == f"'/'={used:g}%;80;90"


def test_the_line_begins_with_the_worst() -> None:
    results = [
        Result("load", State.UNKNOWN, "no load"),
        Result("it's=a|b", State.WARNING, "a|b 85.0%", 85, "%", Limits(80, 90)),
        Result("answer", State.OK, "answered", 0.0123456789, "s"),
    ]
    assert line_of("web", State.WARNING, results) == (
        "WARNING - web: a/b 85.0%; no load; answered | 'it''s_a|b'=85%;80;90 'answer'=0.0123457s"
    )
