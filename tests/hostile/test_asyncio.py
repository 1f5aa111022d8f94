"""AsyncGuestAgent and guests that lie or fall silent: errors, in time, and others do not notice."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from qga.client import AgentError, AsyncGuestAgent
from qga.client.waits import LAST_PATIENCE
from tests.cancelling import Call, cancelled
from tests.hostile.agent import HostileAgent
from tests.hostile.scenarios import SCENARIOS

LIARS = ["silent", "not_utf8", "closed", "trickle", "endless_replies", "endless_string", "no_id"]
TIMEOUT = 1.0


async def ask(address: str, timeout: float = TIMEOUT) -> object:
    async with AsyncGuestAgent(address, timeout) as guest:
        return await guest.hostname(), await guest.exec(["true"])


def test_liars_among_honest_guests(tmp_path: Path) -> None:
    async def ask_all(addresses: list[str]) -> list[object]:
        return list(await asyncio.gather(*map(ask, addresses), return_exceptions=True))

    honest = 20
    with ExitStack() as stack:
        guests = [
            stack.enter_context(HostileAgent(tmp_path / f"{number}", SCENARIOS[name]))
            for number, name in enumerate([*LIARS, *["honest"] * honest])
        ]
        start = time.monotonic()
        outcomes = asyncio.run(ask_all([guest.address for guest in guests]))
        assert time.monotonic() - start < 10 * TIMEOUT
    for name, outcome in zip(LIARS, outcomes):
        assert isinstance(outcome, AgentError), (name, outcome)
        assert str(outcome).startswith("unix:"), (name, outcome)
    assert all(isinstance(each, tuple) for each in outcomes[len(LIARS) :])


@pytest.mark.parametrize("scenario", ["silent", "trickle", "never_exits"])
def test_cancelling_in_a_guest_that_never_answers(tmp_path: Path, scenario: str) -> None:
    async def work(address: str) -> float:
        began = time.monotonic()
        call: Call = ask(address, 3600)
        return await cancelled(call, lambda: time.monotonic() - began > 0.3)

    with HostileAgent(tmp_path / "guest", SCENARIOS[scenario]) as guest:
        # What it began is ended as far as the guest lets it: two waits at most.
        assert asyncio.run(work(guest.address)) < 3 * LAST_PATIENCE
