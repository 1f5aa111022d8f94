"""The library against a hostile guest: a call returns a value of its type or raises AgentError."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile import methods
from tests.hostile.agent import HostileAgent
from tests.hostile.bounded import MB, Victims, as_objects
from tests.hostile.scenarios import SCENARIOS, WAITING

SLOW = {"a_list_just_below_the_limit", "a_list_of_128_mib"}
"""These would take a minute for each of some sixty methods, and all replies take the same path."""

TRIED = [each for each in SCENARIOS if each not in SLOW]


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as victims:
        yield victims


@pytest.mark.parametrize("scenario", TRIED)
def test_every_method(
    victims: Victims, tmp_path_factory: pytest.TempPathFactory, scenario: str
) -> None:
    path = tmp_path_factory.mktemp("guest") / "socket"
    with HostileAgent(path, SCENARIOS[scenario]) as guest:
        outcome = victims.methods(guest.address, 0.05 if scenario in WAITING else 0)
    assert (outcome.status, outcome.killed) == (0, False), outcome
    assert outcome.memory < 300 * MB
    assert outcome.disk < MB
    done = as_objects(outcome.out)
    assert [name for name, _, _ in done] >= methods.names()
    for name, error, seconds in done:
        assert "Traceback" not in error, (name, error)
        assert seconds < 15, (name, error)


def test_an_honest_guest_is_served(
    victims: Victims, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("guest") / "socket"
    with HostileAgent(path, SCENARIOS["honest"]) as guest:
        done = as_objects(victims.methods(guest.address).out)
    failed = {name: error for name, error, _ in done if error}
    assert "need a data port or vsock" in failed.pop("watch")  # this guest has none
    assert "not frozen: text" in failed.pop("snapshot")  # a reply with all members leaves one out
    assert failed == {}
