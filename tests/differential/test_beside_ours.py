"""Commands of our own change nothing of QEMU's: their replies are the same beside them.

Our agent has programs of qga-exec running, as a user and within limits, and rules that bound every
program, so that those of guest-exec are run in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential import cases_commands, cases_exec
from tests.differential.agents import OURS, Agent, Case
from tests.differential.requests import call
from tests.differential.test_whole import assert_same

CASES = [*cases_commands.SYNC, *cases_commands.INFORMATION, *cases_exec.EXEC]

RULES = "[exec]\ntimeout=600\nopen-files=500\nfile-size=1G\n"

SLEEPER = (
    '"path":"/bin/sleep","arg":["600"],"user":"nobody","timeout":600,'
    '"limits":{"cpu-seconds":9,"open-files":99}'
)


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("bounded")
    rules = folder / "conf"
    rules.write_text(RULES)
    rules.chmod(0o644)
    agent = Agent([*OURS, "-c", str(rules)], folder)
    pids = [returned(agent, "qga-exec", SLEEPER)["pid"] for _ in range(3)]
    yield agent
    for pid in pids:
        assert returned(agent, "qga-exec-read", f'"pid":{pid}')["exited"] is False
        returned(agent, "qga-exec-signal", f'"pid":{pid},"signal":"KILL"')
    agent.close()


def returned(agent: Agent, command: str, arguments: str = "") -> Any:
    return json.loads(agent.play(call(command, arguments)))["return"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_beside_ours(
    case: Case, version: str, original: Agent, bounded: Agent, scratch: Path
) -> None:
    assert_same(case, version, original, bounded, scratch)


def test_replies_of_guest_exec_have_the_same_members(original: Agent, bounded: Agent) -> None:
    for arguments in ('"path":"/bin/true"', '"path":"/bin/echo","capture-output":true'):
        theirs, ours = (returned(each, "guest-exec", arguments) for each in (original, bounded))
        assert list(theirs) == list(ours) == ["pid"]
        assert ended(original, theirs["pid"]) == ended(bounded, ours["pid"])


def ended(agent: Agent, pid: int) -> dict[str, Any]:
    while not (status := returned(agent, "guest-exec-status", f'"pid":{pid}'))["exited"]:
        pass
    return dict(status)


def test_the_list_of_commands_has_only_ours_beside_theirs(original: Agent, bounded: Agent) -> None:
    theirs, ours = (
        {each["name"]: each for each in returned(agent, "guest-info")["supported_commands"]}
        for agent in (original, bounded)
    )
    # Those of Windows are disabled there, and not in the list of newer releases.
    answers = {name: each["success-response"] for name, each in theirs.items() if each["enabled"]}
    assert answers == {name: ours[name]["success-response"] for name in answers}
    members = {frozenset(each) for each in (*theirs.values(), *ours.values())}
    assert members == {frozenset({"enabled", "name", "success-response"})}
    beside = [name for name in ours if not name.startswith("guest-")]
    assert beside
    assert all(name.startswith("qga-") for name in beside)
