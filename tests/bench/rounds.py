"""The whole measurement: all agents in turn, measure by measure, round by round."""

from __future__ import annotations

import os
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
from tests.bench.ways import Passage

IN_MEMORY = "/dev/shm"
"""Where files are written, so that no disk is measured."""

ON_DISK = "/var/tmp"
"""Where the file is that is read, which the kernel has in memory. Filesystems of disks can tell
whether a read would have to wait, and tmpfs cannot."""

ALL: tuple[Measure, ...] = (
    measures.ping,
    measures.file_transfer,
    measures.child,
    measures.writes_for_a_reply,
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

SIMD: tuple[Measure, ...] = (measures.file_transfer,)
"""What is another matter with pybase64."""

OLDER_EVERY = 2
"""Rounds of which the older original takes part in one: it is slow, and stands beside."""


class Outcome(NamedTuple):
    """The rows of the table, the ways for files in the guest, and who was measured."""

    rows: list[Row]
    passages: list[Passage]
    contestants: tuple[Contestant, ...]
    seconds: float


def measure(size: Size, python: str, *, with_guest: bool) -> Outcome:
    """Run all measurements. `python` is the interpreter of our agent."""
    begin = time.monotonic()
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="qga-bench-", dir=IN_MEMORY) as name:
        folder = Path(name)
        contestants = (
            agents.original("original", agents.NEWEST),
            agents.original("older", agents.OLDER),
            agents.ours("ours", folder / "installed", python),
            agents.ours("simd", folder / "installed-simd", python, simd=True),
        )
        commands = measure_on_socket(samples, size, contestants, folder)
    in_guest = guest.Outcome((), [])
    if with_guest:
        in_guest = guest.measure(samples, size, progress)
    rows = samples.rows(
        (
            *figures.FIGURES,
            *map(figures.of_command, commands),
            *map(figures.of_command_in_guest, in_guest.commands),
        )
    )
    return Outcome(rows, in_guest.passages, contestants, time.monotonic() - begin)


def measure_on_socket(
    samples: Samples, size: Size, contestants: tuple[Contestant, ...], folder: Path
) -> tuple[str, ...]:
    """Add what is measured on a unix socket to `samples`; the information commands called."""
    with stages(size, contestants, folder) as everybody:
        original, older, ours, simd = everybody
        for number in range(size.rounds):
            present = [original, ours] if number % OLDER_EVERY else [original, older, ours]
            for what in ALL + OURS_ONLY:
                progress(f"round {number + 1} of {size.rounds}: {describe(what)}")
                perform(what, [ours] if what in OURS_ONLY else present, samples)
                if what in SIMD:
                    perform(what, [simd], samples)
            progress(f"round {number + 1} of {size.rounds}: information commands")
            for command in ours.commands * size.turns:
                perform(partial(measures.time_command, command), present, samples)
            progress(f"round {number + 1} of {size.rounds}: idling")
            idle(present, samples)
        for what in OURS_ONCE:
            progress(describe(what))
            perform(what, [ours], samples)
        return ours.commands


def perform(what: Measure, stages: Sequence[Stage], samples: Samples) -> None:
    for stage in stages:
        samples.add(stage.contestant.name, what(stage))


def describe(what: Measure) -> str:
    return what.__name__.replace("_", " ")


@contextmanager
def stages(size: Size, contestants: tuple[Contestant, ...], folder: Path) -> Iterator[list[Stage]]:
    with ExitStack() as stack:
        running = [stack.enter_context(Agent(c, folder / c.name)) for c in contestants]
        commands = common_commands(running)
        file = stack.enter_context(tempfile.NamedTemporaryFile(dir=ON_DISK))
        file.write(os.urandom(size.transferred))
        file.flush()
        os.fsync(file)
        yield [
            Stage(contestant, agent, folder, Path(file.name), commands, size)
            for contestant, agent in zip(contestants, running)
        ]


def common_commands(running: Sequence[Agent]) -> tuple[str, ...]:
    """The information commands that all answer here, without an error."""
    sets = []
    for agent in running:
        with agent.connect() as client:
            sets.append(set(measures.information_commands(client)))
    return tuple(sorted(set.intersection(*sets)))


def idle(present: Sequence[Stage], samples: Samples) -> None:
    """Context switches a second, of all at once, with a client and without."""
    with ExitStack() as stack:
        for stage in present:
            stack.enter_context(stage.agent.connect()).exchange(measures.PING)
        count_switches("idle connected", present, samples)
    count_switches("idle alone", present, samples)


def count_switches(key: str, present: Sequence[Stage], samples: Samples) -> None:
    seconds = present[0].size.idle_seconds
    time.sleep(0.1)  # what the connection before has still to do
    before = [stage.agent.switches() for stage in present]
    time.sleep(seconds)
    for stage, count in zip(present, before):
        samples.add(stage.contestant.name, {key: (stage.agent.switches() - count) / seconds})


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
