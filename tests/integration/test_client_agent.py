"""GuestAgent with real agents: every method, and connections that fail."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.client import (
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ConnectError,
    FileChunk,
    GuestAgent,
)
from tests.integration.client_agents import AGENTS, running


@pytest.fixture(scope="module", params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("agent")) as address:
        yield address


@pytest.fixture
def agent(address: str) -> Iterator[GuestAgent]:
    with GuestAgent(address, 30) as agent:
        yield agent


def test_ping_and_info(agent: GuestAgent) -> None:
    assert agent.ping() > 0
    info = agent.info()
    assert len(info.version.split(".")) == 3
    enabled = {command.name for command in info.commands if command.enabled}
    assert {"guest-ping", "guest-exec", "guest-file-open"} <= enabled


def test_facts_about_this_machine(agent: GuestAgent) -> None:
    assert agent.hostname() == platform.node()
    assert agent.osinfo().kernel_release == platform.release()
    assert agent.timezone().offset == time.localtime().tm_gmtoff
    assert abs(agent.time() - time.time_ns()) < 60 * 10**9


def test_information_of_this_machine(agent: GuestAgent) -> None:
    """Commands of both agents. Their values are tested in the guest."""
    assert "lo" in {interface.name for interface in agent.interfaces()}
    assert all(disk.name.startswith("/dev/") for disk in agent.disks())
    names = {stats.name for stats in agent.disk_stats()}
    assert names == {line.split()[2] for line in Path("/proc/diskstats").read_text().splitlines()}
    for filesystem in agent.filesystems():
        assert os.path.ismount(filesystem.mountpoint) or os.path.isfile(filesystem.mountpoint)
    online = [each.logical_id for each in agent.processors() if each.online]
    assert sorted(online) == sorted(times.cpu for times in agent.processor_times())
    assert len(online) == os.sysconf("SC_NPROCESSORS_ONLN")
    assert agent.freeze_status() == "thawed"
    assert agent.echo(7) == 7
    assert isinstance(agent.users(), list)


def test_a_file_by_its_handle(agent: GuestAgent, tmp_path: Path) -> None:
    path = tmp_path / "file"
    handle = agent.file_open(str(path), "w+")
    assert agent.file_write(handle, b"0123456789") == 10
    agent.file_flush(handle)
    assert path.read_bytes() == b"0123456789"
    assert agent.file_seek(handle, -3, "end").position == 7
    assert agent.file_read(handle, 100) == FileChunk(b"789", True)
    agent.file_close(handle)
    with pytest.raises(CommandError, match="has not been found"):
        agent.file_close(handle)


def test_an_order_that_the_agent_refuses(agent: GuestAgent) -> None:
    with pytest.raises(CommandError, match="guest-shutdown: mode is invalid"):
        agent.order("guest-shutdown", mode="nonsense")
    agent.ping()


def test_errors(agent: GuestAgent) -> None:
    with pytest.raises(CommandNotFound, match="The command guest-nonsense has not been found"):
        agent.call("guest-nonsense")
    with pytest.raises(CommandError, match="No such file or directory"):
        agent.read_file("/nonexistent")
    with pytest.raises(CommandError, match="Parameter 'handle' is missing"):
        agent.call("guest-file-close")
    agent.ping()


def test_exec_gives_output_and_status(agent: GuestAgent) -> None:
    result = agent.exec(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"\0\xffin")
    assert result.stdout == b"\0\xffin"
    assert result.stderr == b"err\n"
    assert (result.exitcode, result.signal) == (3, None)


def test_exec_of_a_program_that_is_killed(agent: GuestAgent) -> None:
    result = agent.exec(["sh", "-c", "kill -TERM $$"])
    assert (result.exitcode, result.signal) == (None, signal.SIGTERM)
    assert result.status == 128 + signal.SIGTERM


def test_exec_with_an_environment_of_its_own(agent: GuestAgent) -> None:
    result = agent.exec(["/usr/bin/env"], env={"A": "b=c", "EMPTY": ""})
    assert sorted(result.stdout.splitlines()) == [b"A=b=c", b"EMPTY="]


def test_exec_without_capture(agent: GuestAgent) -> None:
    assert agent.exec(["echo", "text"], capture=False).stdout == b""


def test_exec_that_cannot_start(agent: GuestAgent) -> None:
    with pytest.raises(CommandError, match=r"guest-exec: .*No such file or directory"):
        agent.exec(["/nonexistent"])


def test_a_file_goes_both_ways_unchanged(agent: GuestAgent, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(5_000_001)
    path = tmp_path / "file"
    agent.write_file(str(path), data)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert agent.read_file(str(path)) == data
    assert agent.read_file(str(path), chunk=65536) == data


def test_an_empty_file(agent: GuestAgent, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    agent.write_file(str(path), b"")
    assert path.read_bytes() == b""
    assert agent.read_file(str(path)) == b""


def test_a_full_disk_is_reported(agent: GuestAgent) -> None:
    with pytest.raises(CommandError, match="No space left on device"):
        agent.write_file("/dev/full", b"data")
    agent.ping()


def test_a_reply_of_many_megabytes(agent: GuestAgent, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(20 << 20))
    assert agent.read_file(str(path), chunk=40 << 20) == bytes(20 << 20)


def test_the_next_call_after_a_timeout_gets_its_own_reply(
    agent: GuestAgent, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(30 << 20))
    handle = agent.call("guest-file-open", path=str(path))
    with pytest.raises(AgentTimeout, match="guest-file-read: timed out"):
        agent.call("guest-file-read", handle=handle, count=30 << 20, timeout=0.001)
    assert agent.hostname() == platform.node()
    agent.call("guest-file-close", handle=handle)


def test_what_an_earlier_client_left_behind_does_no_harm(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.connect(address[len("unix:") :])
        earlier.sendall(b'{"execute": "guest-ping"}{"execute": "guest-pi')
        # The original ends itself when a client leaves with replies unread.
        assert earlier.recv(100) == b'{"return": {}}\n'
    with GuestAgent(address, 30) as agent:
        assert agent.call("guest-ping") == {}


def test_threads_share_an_agent(agent: GuestAgent) -> None:
    wrong = []

    def work(name: int) -> None:
        for number in range(20):
            number += 1000 * name  # noqa: PLW2901
            if (reply := agent.call("guest-sync", id=number)) != number:
                wrong.append((number, reply))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_twenty_connections_in_a_row(address: str) -> None:
    with GuestAgent(address, 30) as agent:
        for _ in range(20):
            agent.ping()
            agent.close()


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_that_goes_away_and_comes_back(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path) as address:
        agent = GuestAgent(address, 30)
        agent.ping()
    with pytest.raises(ConnectError):
        agent.ping()
    with running(name, tmp_path):
        agent.ping()
        agent.close()
