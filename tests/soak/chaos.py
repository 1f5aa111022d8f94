"""Rounds of all clients at once, and what the agent is left with after each."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Callable, NamedTuple

from tests.integration.agent_process import PATIENCE, AgentProcess, wait_for
from tests.integration.gates import with_gates
from tests.soak import bad, good
from tests.soak.scene import BIG_SIZE, Scene

ROUND = 10.0
"""Seconds of a round, at most."""

GROWTH = 16 * 1024 * 1024
"""Bytes that the agent may have more at the end than after the first round: what children left
that nobody asked for is kept, and malloc(3) keeps some."""

MAX_CLIENTS = 64
SETTLING = 0.05  # seconds between two looks at whether the agent is at rest


Turn = Callable[[Scene], None]
"""What a client does before it begins anew; an exception is a fault."""


class Kind(NamedTuple):
    """number: of such clients at once."""

    turn: Turn
    number: int

    @property
    def name(self) -> str:
        return self.turn.__name__.replace("_", " ")


KINDS = (
    Kind(good.asks, 3),
    Kind(good.synchronises, 2),
    Kind(good.writes_and_reads, 2),
    Kind(good.reads_much, 1),
    Kind(good.runs_programs, 3),
    Kind(bad.floods, 2),
    Kind(bad.stalls, 2),
    Kind(bad.cuts, 2),
    Kind(bad.reconnects, 1),
    Kind(bad.sends_garbage, 2),
    Kind(bad.hangs, 4),
    Kind(bad.forgets, 1),
)


class Figures(NamedTuple):
    """What an agent at rest holds: bytes, descriptors, threads."""

    memory: int
    descriptors: int
    threads: int


class Soak:
    """turns and answers by kind of client; a Figures after each round; what went wrong."""

    def __init__(self, agent: AgentProcess, folder: Path, seed: int) -> None:
        self.agent = agent
        self.turns = {kind.name: 0 for kind in KINDS}
        self.answers = {kind.name: 0 for kind in KINDS}
        self.faults: list[str] = []
        self.rounds: list[Figures] = []
        self._folder = folder
        self._chance = Random(seed)
        self._over = threading.Event()
        (folder / "big").write_bytes(Random(1).randbytes(3 * BIG_SIZE))
        wait_for(lambda: len(agent.descriptors("socket:")) == 1, "only the listener to be open")
        self.at_first = look(agent)

    def round(self, seconds: float) -> Figures:
        """One round; what is left of it. Faults are in `faults`."""
        self._over.clear()
        threads = [
            threading.Thread(target=self._be, args=(kind, number, self._chance.getrandbits(64)))
            for kind in KINDS
            for number in range(kind.number)
        ]
        for thread in threads:
            thread.start()
        try:
            self._over.wait(seconds)
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        self._settle()
        self.rounds.append(look(self.agent))
        return self.rounds[-1]

    def judge(self) -> None:
        """Note as a fault what has grown from the first round to the last."""
        grown = self.rounds[-1].memory - self.rounds[0].memory
        if grown > GROWTH:
            self.faults.append(f"the agent's memory has grown by {grown / 1e6:.1f} MB")
        blocking = sum(kind.number for kind in KINDS)
        if self.rounds[-1].threads > 1 + blocking:
            self.faults.append(
                f"{self.rounds[-1].threads} threads for {blocking} clients that came one by one"
            )

    def _be(self, kind: Kind, number: int, seed: int) -> None:
        """A client that takes one turn after the other."""
        name = f"{kind.turn.__name__}-{number}"
        scene = Scene(self.agent, self._folder, name, self._over, Random(seed))
        while not self._over.is_set():
            try:
                kind.turn(scene)
            except Exception:
                self.faults.append(f"{kind.name}:\n{traceback.format_exc()}")
                self._over.set()
            scene.turns += 1
        with _lock:
            self.turns[kind.name] += scene.turns
            self.answers[kind.name] += scene.answers

    def _settle(self) -> None:
        """Wait until nothing of the round is left in the agent."""
        deadline = time.monotonic() + PATIENCE
        while left := list(self._leftovers()):
            if self.agent.process.poll() is not None:
                self.faults.append(f"the agent has ended: {self.agent.log}")
                return
            if time.monotonic() > deadline:
                self.faults.append(f"left in the agent after a round: {'; '.join(left)}")
                return
            time.sleep(SETTLING)

    def _leftovers(self) -> Iterator[str]:
        opened = self.agent.descriptors("")
        if len(opened) > self.at_first.descriptors:
            yield f"descriptors {opened}"
        children = [f"{pid} ({state})" for pid, state in children_of(self.agent.pid)]
        if children:
            yield f"children {', '.join(children)}"
        busy = [place for place in waiting_places(self.agent.pid) if not is_rest(place)]
        if busy:
            yield f"threads in {', '.join(busy)}"


_lock = threading.Lock()


@contextmanager
def soaking(folder: Path, seed: int) -> Iterator[Soak]:
    """An agent with a plugin of commands that hang; the terminal's Ctrl-C does not reach it."""
    with with_gates(folder, f"max-clients={MAX_CLIENTS}\n", start_new_session=True) as agent:
        yield Soak(agent, folder, seed)


def look(agent: AgentProcess) -> Figures:
    return Figures(agent.memory("VmRSS"), len(agent.descriptors("")), agent.threads)


def children_of(parent: int) -> Iterator[tuple[int, str]]:
    """Pid and state of each child, a zombie's too: Z."""
    for task in os.listdir(f"/proc/{parent}/task"):
        for pid in Path(f"/proc/{parent}/task/{task}/children").read_text().split():
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except FileNotFoundError:  # waited for meanwhile
                continue
            yield int(pid), stat.rpartition(")")[2].split()[0]


def waiting_places(pid: int) -> list[str]:
    """Where in the kernel each thread sleeps."""
    return [
        Path(f"/proc/{pid}/task/{task}/wchan").read_text()
        for task in os.listdir(f"/proc/{pid}/task")
    ]


def is_rest(place: str) -> bool:
    """Whether a thread that sleeps there has nothing to do: in epoll_wait(2), or on a lock."""
    return "poll" in place or "futex" in place


def table(soak: Soak, kinds: Sequence[Kind] = KINDS) -> str:
    lines = ["client             number     turns   answers"]
    lines += [
        f"{kind.name:<18}{kind.number:>7}{soak.turns[kind.name]:>10}{soak.answers[kind.name]:>10}"
        for kind in kinds
    ]
    lines += ["", "the agent at rest   memory  descriptors  threads"]
    lines += [
        f"{when:<18}{figures.memory / 1e6:>5.1f} MB{figures.descriptors:>13}{figures.threads:>9}"
        for when, figures in (
            ("at first", soak.at_first),
            *(
                [("after a round", soak.rounds[0]), ("at the end", soak.rounds[-1])]
                if soak.rounds
                else []
            ),
        )
    ]
    return "\n".join(lines)
