"""Thousands of random inputs, each answered alike by both agents."""

from __future__ import annotations

import pytest

from tests.differential import garbage
from tests.differential.agents import Agent
from tests.differential.differences import (
    has_fault,
    reworded,
    same_but_for_choice,
    same_until_fault,
    without_choices,
)

SEEDS = range(20)
INPUTS = 500


@pytest.mark.parametrize("seed", SEEDS)
def test_random_input(seed: int, version: str, original: Agent, ours: Agent) -> None:
    for pieces in garbage.inputs(seed, INPUTS):
        theirs = [*map(reworded, original.play(*pieces).splitlines(keepends=True))]
        answered = ours.play(*pieces).splitlines(keepends=True)
        if version == "7.2" and has_fault([*theirs, *answered]):
            assert same_until_fault(*map(without_choices, (answered, theirs))) is None, pieces
            continue
        alike = len(theirs) == len(answered) and all(map(same_but_for_choice, answered, theirs))
        assert alike, f"{pieces}:\n  {theirs}\nin ours\n  {answered}"
