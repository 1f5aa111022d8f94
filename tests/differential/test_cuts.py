"""However the bytes are cut, QEMU's newest agent and ours each answer as to one piece.

Together with `test_whole` this says that the agents agree on the cut input as well.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.agents import Agent, Case, Performance, Until, byte_by_byte, whole
from tests.differential.cases import COMMANDS, PROTOCOL, lay_out

MODERATE = 120
"""Bytes up to which a case is cut everywhere."""

SMALL = 2000
"""Bytes up to which a case is played byte by byte."""


def size(case: Case) -> int:
    requests = (step.request if isinstance(step, Until) else step for step in case.steps)
    return sum(len(request) for request in requests if isinstance(request, bytes))


CUT_ANYWHERE = [
    case
    for case in (*PROTOCOL, *COMMANDS)
    if case.plain and not case.volatile and len(case.plain) <= MODERATE
]
CUT_SMALL = [case for case in (*PROTOCOL, *COMMANDS) if size(case) <= SMALL and not case.breaks]


@pytest.mark.parametrize("case", CUT_ANYWHERE, ids=lambda case: case.name)
def test_cut_in_two(case: Case, newest: Agent, ours: Agent) -> None:
    data = case.plain or b""
    for agent in (newest, ours):
        uncut = agent.play(data)
        for cut in range(1, len(data)):
            answer = agent.play(data[:cut], data[cut:])
            assert answer == uncut, f"cut after {data[:cut]!r}: {answer!r}, not {uncut!r}"


@pytest.mark.parametrize("case", CUT_SMALL, ids=lambda case: case.name)
def test_byte_by_byte(case: Case, newest: Agent, ours: Agent, scratch: Path) -> None:
    for agent in (newest, ours):
        answers = []
        for cut in (whole, byte_by_byte):
            if case.plain is None:
                lay_out(scratch)
            answers.append(Performance(agent, scratch, cut).of(case))
        assert answers[0] == answers[1]
