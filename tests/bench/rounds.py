"""The whole measurement: both agents in turn, measure by measure, round by round."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.bench import agents, figures, guest, measures
from tests.bench.agents import Agent, Contestant
from tests.bench.measures import Measure, Size, Stage
from tests.bench.table import Row, Samples

IN_MEMORY = "/dev/shm"
"""Where files are read and written, so that no disk is measured."""

BOTH: tuple[Measure, ...] = (
    measures.ping,
    measures.file_transfer,
    measures.child,
    measures.writes_for_a_reply,
    measures.file_transfer,
    measures.peak_memory,
    measures.start,
    measures.file_transfer,
    measures.long_request,
    measures.crowd_of_children,
)
"""Files are transferred more than once per round, because other load affects them most."""

OURS_ONLY: tuple[Measure, ...] = (measures.crowd_of_clients,)
"""The original serves one client at a time."""

OURS_ONCE: tuple[Measure, ...] = (measures.memory_growth,)
"""Measurements that take too long for every round."""


class Outcome(NamedTuple):
    """The rows of the table, and who was measured."""

    rows: list[Row]
    contestants: tuple[Contestant, Contestant]
    seconds: float


def measure(size: Size, python: str, *, with_guest: bool) -> Outcome:
    """Run all measurements. `python` is the interpreter of our agent."""
    begin = time.monotonic()
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="qga-bench-", dir=IN_MEMORY) as name:
        folder = Path(name)
        contestants = (agents.original(), agents.ours(folder / "installed", python))
        commands = measure_on_socket(samples, size, contestants, folder)
    commands_in_guest: tuple[str, ...] = ()
    if with_guest:
        commands_in_guest = guest.measure(samples, size, progress)
    rows = samples.rows(
        (
            *figures.FIGURES,
            *map(figures.of_command, commands),
            *map(figures.of_command_in_guest, commands_in_guest),
        )
    )
    return Outcome(rows, contestants, time.monotonic() - begin)


def measure_on_socket(
    samples: Samples, size: Size, contestants: tuple[Contestant, Contestant], folder: Path
) -> tuple[str, ...]:
    """Add measurements on a unix socket to `samples`; returns the information commands called."""
    with stages(size, contestants, folder) as both:
        for number in range(size.rounds):
            for what in BOTH + OURS_ONLY:
                progress(f"round {number + 1} of {size.rounds}: {describe(what)}")
                perform(what, both[1:] if what in OURS_ONLY else both, samples)
            progress(f"round {number + 1} of {size.rounds}: information commands")
            for command in both[0].commands * size.turns:
                perform(partial(measures.time_command, command), both, samples)
            progress(f"round {number + 1} of {size.rounds}: idling")
            idle(both, samples)
        for what in OURS_ONCE:
            progress(describe(what))
            perform(what, both[1:], samples)
        return both[0].commands


def perform(what: Measure, stages: Sequence[Stage], samples: Samples) -> None:
    for stage in stages:
        samples.add(stage.contestant.name, what(stage))


def describe(what: Measure) -> str:
    return what.__name__.replace("_", " ")


@contextmanager
def stages(
    size: Size, contestants: tuple[Contestant, Contestant], folder: Path
) -> Iterator[list[Stage]]:
    with ExitStack() as stack:
        running = [stack.enter_context(Agent(c, folder / c.name)) for c in contestants]
        commands = common_commands(running)
        yield [
            Stage(contestant, agent, folder, commands, size)
            for contestant, agent in zip(contestants, running)
        ]


def common_commands(running: Sequence[Agent]) -> tuple[str, ...]:
    """The information commands to which both reply without an error on this machine."""
    sets = []
    for agent in running:
        with agent.connect() as client:
            sets.append(set(measures.information_commands(client)))
    return tuple(sorted(set.intersection(*sets)))


def idle(both: Sequence[Stage], samples: Samples) -> None:
    """Context switches per second, of both at once, with a client and without."""
    with ExitStack() as stack:
        for stage in both:
            stack.enter_context(stage.agent.connect()).exchange(measures.PING)
        count_switches("idle connected", both, samples)
    count_switches("idle alone", both, samples)


def count_switches(key: str, both: Sequence[Stage], samples: Samples) -> None:
    seconds = both[0].size.idle_seconds
    time.sleep(0.1)  # what the connection before has still to do
    before = [stage.agent.switches() for stage in both]
    time.sleep(seconds)
    for stage, count in zip(both, before):
        samples.add(stage.contestant.name, {key: (stage.agent.switches() - count) / seconds})


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
