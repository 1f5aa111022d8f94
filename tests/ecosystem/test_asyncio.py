"""AsyncGuestAgent in a real guest: what is cancelled leaves nothing there, and the guest goes on
answering."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qga.client import AsyncGuestAgent, DataPorts, Observer
from tests.cancelling import Call, cancelled
from tests.guest.service import OPEN_FILES, main_pid, wait_for
from tests.guest.vm import Guest, GuestError
from tests.host.day import Day

pytestmark = pytest.mark.timeout(900)

PATIENT = 60.0
"""Seconds that an emulated guest may take for a reply."""

PROMPT = 30.0
SIZE = 64 * 1024 * 1024
MARK = "8219"
"""In the command line of the programs of these tests."""

# What a call may leave behind: its processes, what the agent has open, files and frozen disks.
# Few programs: each takes an emulated guest long.
LOOK = f"""
pgrep -fa '^(/bin/sh -c )?sleep {MARK}'
{OPEN_FILES} | grep -v ':\\[' | sort
ls -A /srv/copies
"""


@pytest.fixture
def web(web: Day, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Day:
    """This process is on the host whose guest is called web."""
    monkeypatch.setenv("QGA_HOST_ROOT", str(web.root))
    guest.run(["mkdir", "-p", "/srv/copies"])
    return web


@contextmanager
def nothing_left(guest: Guest) -> Iterator[None]:
    look = ["/bin/sh", "-c", LOOK, "sh", str(main_pid(guest))]
    before = guest.run(look, check=False).stdout
    yield
    after = ""

    def is_as_before() -> bool:
        nonlocal after
        after = guest.run(look, check=False).stdout
        return after == before

    try:
        wait_for(is_as_before, "the guest to be as it was before")
    except GuestError as error:
        raise AssertionError(f"{before}\nbecame\n{after}") from error


def cancel(guest: Guest, call: Callable[[AsyncGuestAgent], Call], after: Callable[[], Any]) -> None:
    async def work() -> None:
        async with AsyncGuestAgent("web", PATIENT) as web:
            assert await web.echo(1) == 1
            with nothing_left(guest):
                assert await cancelled(call(web), after) < PROMPT
                assert await web.echo(7) == 7
            assert await web.freeze_status() == "thawed"

    asyncio.run(work())


def runs(guest: Guest) -> bool:
    return guest.run(["pgrep", "-f", f"^sleep {MARK}"], check=False).status == 0


TREE = ["/bin/sh", "-c", f"sleep {MARK} & sleep {MARK}; :"]


@pytest.mark.parametrize(
    "how", [{}, {"timeout": 600.0, "user": "nobody"}], ids=["plain", "bounded"]
)
def test_a_program(guest: Guest, web: Day, how: dict[str, Any]) -> None:
    cancel(guest, lambda agent: agent.exec(TREE, **how), lambda: runs(guest))


def test_a_program_on_a_data_port(guest: Guest, web: Day) -> None:
    async def stream(agent: AsyncGuestAgent) -> None:
        async with agent.start_streamed(TREE, DataPorts("web")) as program:
            while program.result is None:
                await program.poll()

    cancel(guest, stream, lambda: runs(guest))


class Progress(Observer):
    bytes = 0

    def moved(self, count: int) -> None:
        self.bytes += count


@pytest.mark.parametrize("ports", [True, False], ids=["data port", "no data port"])
@pytest.mark.parametrize("way", ["copy_to", "copy_from"])
def test_a_copy(guest: Guest, web: Day, tmp_path: Path, way: str, ports: bool) -> None:
    progress, here = Progress(), tmp_path / "here"
    here.mkdir()
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", SIZE)
    guest.run(["truncate", "-s", str(SIZE), "/srv/large"])
    unused = {"org.qga.data.0": "", "org.qga.data.1": ""}

    def call(agent: AsyncGuestAgent) -> Call:
        how: dict[str, Any] = {
            "observer": progress,
            "ports": None if ports else DataPorts("web", unused),
        }
        if way == "copy_to":
            return agent.copy_to([str(tmp_path / "large")], "/srv/copies", **how)
        return agent.copy_from(["/srv/large"], str(here), **how)

    cancel(guest, call, lambda: progress.bytes)
    assert 0 < progress.bytes < SIZE
    assert list(here.iterdir()) == []


async def wait(agent: AsyncGuestAgent, reached: list[str]) -> None:
    await agent.wait_for(f"file:/run/{MARK}", report=lambda text, _reason: reached.append(text))


async def watch(agent: AsyncGuestAgent, reached: list[str]) -> None:
    async with agent.watch("mount") as events:
        reached.append("watch")
        async for event in events:
            reached.append(event.name)


async def freeze(agent: AsyncGuestAgent, reached: list[str]) -> None:
    async with agent.freeze() as frozen:
        assert frozen.count > 0
        reached.append("freeze")
        await asyncio.sleep(600)


@pytest.mark.parametrize("work", [wait, watch, freeze])
def test_what_lasts(guest: Guest, web: Day, work: Callable[..., Call]) -> None:
    reached: list[str] = []
    cancel(guest, lambda agent: work(agent, reached), lambda: reached)


def test_a_connection_for_streams_of_asyncio(guest: Guest, web: Day) -> None:
    async def work() -> bytes:
        argv = ["/usr/bin/python3", "-c", SERVER]
        async with AsyncGuestAgent("web", PATIENT) as agent, agent.start_streamed(argv) as server:
            while not (port := (await server.poll()).stdout):
                await asyncio.sleep(0.1)
            connection = await agent.connect("127.0.0.1", int(port), timeout=PATIENT)
            reader, writer = await asyncio.open_connection(sock=connection)
            writer.write(b"echo\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return line

    with nothing_left(guest):
        assert asyncio.run(work()) == b"echo\n"


SERVER = f"""
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)  # {MARK}
client, _ = server.accept()
client.sendall(client.recv(100))
client.recv(1)
"""
