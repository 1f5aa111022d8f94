"""Thousands of random inputs, each answered alike by both agents."""

from __future__ import annotations

import pytest

from tests.differential import garbage
from tests.differential.agents import Agent
from tests.differential.differences import same_but_for_choice

SEEDS = range(20)
INPUTS = 500


@pytest.mark.parametrize("seed", SEEDS)
def test_random_input(seed: int, original: Agent, ours: Agent) -> None:
    for pieces in garbage.inputs(seed, INPUTS):
        theirs = original.play(*pieces).splitlines(keepends=True)
        answered = ours.play(*pieces).splitlines(keepends=True)
        alike = len(theirs) == len(answered) and all(map(same_but_for_choice, answered, theirs))
        assert alike, f"{pieces}:\n  {theirs}\nin ours\n  {answered}"
