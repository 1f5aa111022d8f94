"""Each case, whole, to an original and ours: the same lines, or the difference that is meant."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.differences import differs
from tests.differential import wire
from tests.differential.agents import SUITES, Agent, Case, Performance
from tests.differential.agents import original as command
from tests.differential.cases import CASES, lay_out
from tests.differential.differences import (
    DIFFERENCES,
    expected,
    first_difference,
    has_fault,
    of_case,
    same_until_fault,
)
from tests.differential.requests import call


def perform(case: Case, agent: Agent, scratch: Path) -> list[bytes]:
    if case.plain is None:
        lay_out(scratch)
    return Performance(agent, scratch).of(case)


@differs("parse-errors")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same(case: Case, version: str, original: Agent, ours: Agent, scratch: Path) -> None:
    assert_same(case, version, original, ours, scratch)


def assert_same(case: Case, version: str, original: Agent, ours: Agent, scratch: Path) -> None:
    theirs = perform_by_original(case, version, original, scratch)
    answered = perform(case, ours, scratch)
    if version == "7.2" and not of_case(case.name, version) and has_fault([*theirs, *answered]):
        found = same_until_fault(answered, theirs)
    else:
        wanted = expected(case.name, version, theirs)
        if of_case(case.name, version):
            assert first_difference(wanted, theirs), "no longer a difference"
        found = first_difference(answered, wanted)
    assert found is None, found
    for line in answered:
        assert_order(line)


def perform_by_original(case: Case, version: str, agent: Agent, scratch: Path) -> list[bytes]:
    if not case.breaks:
        return perform(case, agent, scratch)
    with TemporaryDirectory() as folder, closing(Agent(command(version), Path(folder))) as another:
        return perform(case, another, scratch)


@differs("capture-one-stream")
@pytest.mark.parametrize("mode", ["stdout", "stderr"])
def test_one_stream_more_than_once(ours: Agent, mode: str) -> None:
    with TemporaryDirectory() as folder, closing(Agent(command("11.1"), Path(folder))) as theirs:
        assert [ends_with_output(ours, mode) for _ in range(3)] == [True] * 3
        assert [ends_with_output(theirs, mode) for _ in range(3)] != [True] * 3


def ends_with_output(agent: Agent, mode: str) -> bool:
    """Whether a program with this capture mode is seen to end, with its output."""
    arguments = f'"path":"/bin/sh","arg":["-c","echo out; echo err >&2"],"capture-output":"{mode}"'
    pid = json.loads(agent.play(call("guest-exec", arguments)))["return"]["pid"]
    give_up = time.monotonic() + 3
    while time.monotonic() < give_up:
        status = json.loads(agent.play(call("guest-exec-status", f'"pid":{pid}')))["return"]
        if status["exited"]:
            return "out-data" in status or "err-data" in status
        time.sleep(0.02)
    return False


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
    named = Counter(
        (name, version)
        for each in DIFFERENCES
        for version in SUITES
        for name in each.cases
        if each.is_of(version)
    )
    assert {name for name, _ in named} <= {case.name for case in CASES}
    assert set(named.values()) == {1}


@differs("member-order")
def test_order_is_as_sent(ours: Agent) -> None:
    """What sorting hides in the comparison: members of an id stay where the client put them."""
    reply = ours.play(b'{"id":{"b":1,"a":{"d":2,"c":3}},"execute":"guest-ping"}')
    assert reply == b'{"return": {}, "id": {"b": 1, "a": {"d": 2, "c": 3}}}\n'


def test_guest_info(version: str, original: Agent, ours: Agent) -> None:
    """Ours has more commands; those of both are described alike."""
    request = b'{"execute":"guest-info"}'
    theirs, answered = (json.loads(agent.play(request))["return"] for agent in (original, ours))
    assert set(answered) == set(theirs)
    if version == "11.1":
        assert answered["version"] == theirs["version"]
    described = {entry["name"]: entry for entry in theirs["supported_commands"]}
    for entry in answered["supported_commands"]:
        assert entry == described.get(entry["name"], entry)
        assert list(entry) == ["name", "enabled", "success-response"]
