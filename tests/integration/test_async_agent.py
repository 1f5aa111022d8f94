"""AsyncGuestAgent with real agents: a hundred guests at once, and nothing is left of what was
cancelled, with QEMU's agent as with ours."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from qga.client import AsyncGuestAgent, GuestAgent, Observer
from tests.cancelling import Call, cancelled
from tests.hostile.agent import HostileAgent, Request, encode
from tests.integration.agent_process import wait_for
from tests.integration.client_agents import AGENTS, running
from tests.integration.test_exec_bounds import processes

GUESTS = 100
DELAY = 0.3
"""Seconds that each reply takes."""

MARK = str(10**6 + os.getpid())
"""In the command line of the programs of these tests, whatever others run."""

LARGE = 200_000_000

TREE = ["/bin/sh", "-c", f"sleep {MARK} & sleep {MARK}; :"]
PROMPT = 5.0


def slow(request: Request, value: Any) -> Iterator[bytes]:
    time.sleep(DELAY)
    yield encode(request, value)


def test_a_hundred_guests_at_once(tmp_path: Path) -> None:
    async def work(address: str) -> tuple[str, str]:
        async with AsyncGuestAgent(address, 30) as guest:
            result = await guest.exec(["stat"], text=True)
            return await guest.hostname(), result.stdout

    async def laps() -> int:
        """Turns of the loop, until it is cancelled."""
        count = 0
        try:
            while True:
                await asyncio.sleep(DELAY / 10)
                count += 1
        except asyncio.CancelledError:
            return count

    async def all_of_them(addresses: list[str]) -> tuple[list[tuple[str, str]], int]:
        clock = asyncio.ensure_future(laps())
        results = await asyncio.gather(*map(work, addresses))
        clock.cancel()
        return results, await clock

    with ExitStack() as guests:
        serve = (HostileAgent(tmp_path / f"{number}", slow) for number in range(GUESTS))
        addresses = [guests.enter_context(guest).address for guest in serve]
        start = time.monotonic()
        results, turns = asyncio.run(all_of_them(addresses))
        seconds = time.monotonic() - start
    assert results == [("text", "81a4 4\n")] * GUESTS
    assert seconds < GUESTS * 3 * DELAY / 4  # one after another: three replies for each
    assert turns > 10  # nobody kept the loop from its other work


@pytest.fixture(params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An agent of each kind. Its programs create their temporary files in `tmp_path/temporary`."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with running(request.param, tmp_path) as address:
        yield address


def opened_by(agent: str) -> list[str]:
    """What the agent has open, besides its clients."""
    names = []
    for link in Path(f"/proc/{agent}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(link))
    return sorted(name for name in names if not name.startswith("socket:"))


def cancel(address: str, call: Callable[[AsyncGuestAgent], Call], after: Callable[[], Any]) -> None:
    """Cancel a call when `after` is true: it ends soon, and leaves nothing behind."""
    (agent,) = processes(address.partition(":")[2])

    async def work() -> None:
        async with AsyncGuestAgent(address, 30) as guest:
            before = opened_by(agent)
            assert await cancelled(call(guest), after) < PROMPT
            assert processes(MARK) == []
            wait_for(lambda: opened_by(agent) == before, "the agent to have closed everything")
            assert await guest.echo(7) == 7

    asyncio.run(work())


WAYS: dict[str, dict[str, Any]] = {
    "plainly": {},
    "in a directory": {"cwd": "/"},
    "with a limit": {"timeout": 600.0},
}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_programs_that_run(address: str, how: dict[str, Any]) -> None:
    cancel(address, lambda guest: guest.exec(TREE, **how), lambda: len(processes(MARK)) == 2)


def test_a_program_whose_output_is_kept_in_files(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with libvirt, which passes on small replies only."""
    monkeypatch.setattr(GuestAgent, "max_output", lambda _: 1 << 20)
    cancel(address, lambda guest: guest.exec(TREE, capture="merged"), lambda: processes(MARK))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_program_with_streams(address: str) -> None:
    async def stream(guest: AsyncGuestAgent) -> None:
        async with guest.start_streamed(TREE) as program:
            while program.result is None:
                await program.poll()

    with GuestAgent(address) as agent:
        has_streams = agent.release() is not None
    if has_streams:  # QEMU's agent has none
        cancel(address, stream, lambda: processes(MARK))


class Halfway(Observer):
    def __init__(self) -> None:
        self.bytes = 0

    def moved(self, count: int) -> None:
        self.bytes += count


@pytest.mark.parametrize("way", ["copy_to", "copy_from"])
def test_copies(address: str, tmp_path: Path, way: str) -> None:
    there, halfway = tmp_path / "there", Halfway()
    there.mkdir()
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", LARGE)

    def call(guest: AsyncGuestAgent) -> Call:
        copy = guest.copy_to if way == "copy_to" else guest.copy_from
        return copy([str(tmp_path / "large")], str(there), observer=halfway)

    cancel(address, call, lambda: halfway.bytes > 1_000_000)
    assert list(there.iterdir()) == []
    assert halfway.bytes < LARGE


def test_writing_a_file(address: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    size = lambda: file.exists() and file.stat().st_size  # noqa: E731 - as the others
    cancel(address, lambda guest: guest.write_file(str(file), bytes(LARGE)), size)
    assert 0 < file.stat().st_size < LARGE


def test_reading_a_file(address: str) -> None:
    (agent,) = processes(address.partition(":")[2])
    endless = "/dev/zero"
    read = lambda guest: guest.read_file(endless, limit=1 << 40)  # noqa: E731 - as the others
    cancel(address, read, lambda: endless in opened_by(agent))


def test_waiting_for_a_file(address: str, tmp_path: Path) -> None:
    began = time.monotonic()
    cancel(
        address,
        lambda guest: guest.wait_for(f"file:{tmp_path / MARK}"),
        lambda: time.monotonic() - began > 0.5,
    )
