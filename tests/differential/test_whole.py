"""Each case, whole, to both agents: the same lines, or the difference that is meant."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.differential import wire
from tests.differential.agents import Agent, Case, Performance
from tests.differential.cases import CASES, lay_out
from tests.differential.differences import BY_CASE, DIFFERENCES, expected, first_difference


def perform(case: Case, agent: Agent, scratch: Path) -> list[bytes]:
    if case.plain is None:
        lay_out(scratch)
    return Performance(agent, scratch).of(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same(case: Case, original: Agent, ours: Agent, scratch: Path) -> None:
    theirs = perform(case, original, scratch)
    answered = perform(case, ours, scratch)
    wanted = expected(case.name, theirs)
    if case.name in BY_CASE:
        assert first_difference(wanted, theirs), "no longer a difference"
    assert (found := first_difference(answered, wanted)) is None, found
    for line in answered:
        assert_order(line)


def assert_order(line: bytes) -> None:
    """`return` or `error` comes first, then `id`, and nothing else."""
    if not line.lstrip(b"\xff").startswith(b"{"):
        return  # a look at a file
    try:
        members = wire.members(line)
    except RecursionError:
        members = ["return", "id"]
    assert members in (["return"], ["error"], ["return", "id"], ["error", "id"])


def test_names_are_unique() -> None:
    counted = Counter(case.name for case in CASES)
    assert [name for name, count in counted.items() if count > 1] == []


def test_differences_are_of_cases() -> None:
    assert set(BY_CASE) <= {case.name for case in CASES}
    assert len(BY_CASE) == sum(len(entry.cases) for entry in DIFFERENCES)


def test_order_is_as_sent(ours: Agent) -> None:
    """What sorting hides in the comparison: members of an id stay where the client put them."""
    reply = ours.play(b'{"id":{"b":1,"a":{"d":2,"c":3}},"execute":"guest-ping"}')
    assert reply == b'{"return": {}, "id": {"b": 1, "a": {"d": 2, "c": 3}}}\n'


def test_guest_info(original: Agent, ours: Agent) -> None:
    """Ours has a version of its own and other commands; those of both are described alike."""
    request = b'{"execute":"guest-info"}'
    theirs, answered = (json.loads(agent.play(request))["return"] for agent in (original, ours))
    assert set(answered) == set(theirs)
    assert answered["version"].split(".")[:2] == ["10", "2"]
    described = {entry["name"]: entry for entry in theirs["supported_commands"]}
    for entry in answered["supported_commands"]:
        assert entry == described.get(entry["name"], entry)
        assert list(entry) == ["name", "enabled", "success-response"]
