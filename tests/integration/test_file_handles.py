"""guest-file-* with files that are not regular, and the life of handles."""

from __future__ import annotations

import base64
import itertools
import os
import random
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qga import Base64
from qga.errors import QgaError
from qga.loop import Loop
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.policy.shares import Descriptors
from qga.settings.config import ChannelConfig
from tests.integration.agent_process import (
    AgentProcess,
    Client,
    listening,
    refused,
    request,
    start,
)
from tests.integration.guest_file import File

MIB = 1024 * 1024
MAX_READ = 48 * MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_directory_opens_and_cannot_be_read(client: Client, tmp_path: Path) -> None:
    file = File(client, tmp_path)
    with refused("failed to read file: Is a directory"):
        file.read()
    file.close()


def test_opening_a_fifo_does_not_wait(client: Client, path: Path) -> None:
    os.mkfifo(path)
    reader = File(client, path, "r")
    assert reader.read() == (b"", True), "no writer yet"
    with path.open("wb", buffering=0) as writer:
        with refused("failed to read file: Resource temporarily unavailable"):
            reader.read()
        writer.write(b"abc")
        assert reader.read() == (b"abc", False), "more may come"
    assert reader.read() == (b"", True)
    with refused("failed to seek file: Illegal seek"):
        reader.seek(0)
    reader.close()
    assert client.refusal("guest-file-open", path=str(path), mode="w").endswith(
        "No such device or address"
    )
    both = File(client, path, "r+")
    with refused("failed to read file: Resource temporarily unavailable"):
        both.read()
    assert both.write(b"abc") == 3
    assert both.read(3) == (b"abc", False)


def test_what_a_full_fifo_does_not_take_is_not_reported(client: Client, path: Path) -> None:
    os.mkfifo(path)
    data = random.Random(11).randbytes(MIB)
    file = File(client, path, "r+")
    taken = file.write(data)
    assert 0 < taken < MIB
    with refused("failed to write to file: Resource temporarily unavailable"):
        file.write(b"x")
    assert file.read(MIB) == (data[:taken], False)


def test_a_fifo_without_readers_does_not_kill(client: Client, path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = File(client, path, "w")
    os.close(reader)
    with refused("failed to write to file: Broken pipe"):
        file.write(b"x")


def test_endless_devices(client: Client) -> None:
    assert File(client, "/dev/zero").read(MIB) == (bytes(MIB), False)
    assert File(client, "/dev/null", "r+").read() == (b"", True)
    assert File(client, "/dev/null", "r+").write(b"x") == 1


def test_files_of_the_kernel_that_have_no_size(client: Client) -> None:
    data, at_end = File(client, "/proc/self/status").read(MIB)
    assert data.startswith(b"Name:")
    assert at_end


def test_names_beyond_ascii(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "ä€😀 'quoted'\n"
    File(client, path, "w").write(b"x")
    assert path.read_bytes() == b"x"


def test_a_removed_file_can_still_be_used(client: Client, path: Path) -> None:
    file = File(client, path, "w+")
    path.unlink()
    assert file.write(b"abc") == 3
    file.seek(0)
    assert file.read() == (b"abc", True)


def test_handles_outlive_their_connection(agent: AgentProcess, path: Path) -> None:
    path.write_bytes(b"0123456789")
    with agent.connect() as first:
        file = File(first, path)
        file.read(3)
    with agent.connect() as second:
        file.client = second
        assert file.read() == (b"3456789", True)
        file.close()


def test_handles_are_not_used_again(client: Client, path: Path) -> None:
    path.touch()
    handles = []
    for _ in range(5):
        file = File(client, path)
        handles.append(file.handle)
        file.close()
    assert handles == list(range(handles[0], handles[0] + 5))


@pytest.mark.parametrize("end", ["terminated", "killed"])
def test_handles_are_not_used_again_after_a_restart(tmp_path: Path, end: str) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        assert [File(client, "/dev/null").handle for _ in range(3)] == [1000, 1001, 1002]
        if end == "terminated":
            assert agent.stop() == 0
    if end == "killed":
        doomed = start(tmp_path)
        doomed.wait_for_socket()
        with doomed.connect() as client:
            assert File(client, "/dev/null").handle == 1003
        doomed.process.kill()
        doomed.process.wait()
    with listening(tmp_path) as agent, agent.connect() as client:
        assert client.refusal("guest-file-read", handle=1000) == "handle '1000' has not been found"
        assert File(client, "/dev/null").handle == (1003 if end == "terminated" else 1004)


def test_a_handle_that_cannot_be_recorded_is_not_given(tmp_path: Path, path: Path) -> None:
    path.touch()
    state = tmp_path / "state"
    state.mkdir()
    with listening(tmp_path, "-t", str(state)) as agent, agent.connect() as client:
        (state / "qga.state").unlink()
        state.rmdir()
        assert client.refusal("guest-file-open", path=str(path)) == (
            "failed to commit persistent state to disk"
        )
        assert agent.descriptors(str(path)) == []
        state.mkdir()
        assert File(client, path).handle == 1000


def test_clients_may_write_by_one_handle(agent: AgentProcess, path: Path) -> None:
    """Each write is atomic, although they come at the same time."""
    with agent.connect() as client:
        handle = File(client, path, "w").handle

    def write(letter: bytes) -> None:
        text = base64.b64encode(letter * 9999 + b"\n").decode()
        with agent.connect() as client:
            client.send(request("guest-file-write", handle=handle, buf_b64=text) * 20)
            assert [client.result()["count"] for _ in range(20)] == [10000] * 20

    letters = [b"a", b"b", b"c", b"d", b"e", b"f"]
    threads = [threading.Thread(target=write, args=(letter,)) for letter in letters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(letter * 9999 for letter in letters * 20)
    assert sorted(path.read_bytes().splitlines()) == expected


def test_clients_may_read_and_close_at_the_same_time(agent: AgentProcess, path: Path) -> None:
    """A read gets its own file or an error, never another file that got the same descriptor."""
    path.write_bytes(b"x" * MIB)
    with agent.connect() as opener, agent.connect() as reader:
        for _ in range(30):
            file = File(opener, path)
            reader.send(request("guest-file-read", handle=file.handle, count=MIB) * 3)
            opener.send(
                request("guest-file-close", handle=file.handle),
                request("guest-file-open", path="/dev/zero"),
            )
            assert opener.result() == {}
            zero = opener.result()
            for _ in range(3):
                reply = reader.reply()
                if "return" in reply:
                    assert set(base64.b64decode(reply["return"]["buf-b64"])) <= {ord("x")}
                else:
                    assert reply["error"]["desc"] == (f"handle '{file.handle}' has not been found")
            opener.call("guest-file-close", handle=zero)


class SlowLock:
    """The lock of a file; it can be taken only after somebody else has closed the file."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def __enter__(self) -> None:
        self._close()

    def __exit__(self, *_exception: object) -> None:
        pass


@pytest.mark.parametrize("command", ["read", "write", "close"])
def test_a_file_that_is_closed_while_a_command_waits_for_it(path: Path, command: str) -> None:
    """Its descriptor may belong to another file by then, which must stay open."""
    path.write_bytes(b"")
    agent = SimpleNamespace(
        loop=Loop(),
        descriptors=Descriptors(1024, [ChannelConfig()]),
        state=SimpleNamespace(next_handle=itertools.count(1).__next__),
    )
    group = import_module("qga.commands.files").Files(agent)
    caller = Caller("main", Policy())
    handle = group.guest_file_open(str(path), "r+", caller=caller)
    file = group._files[handle]
    reused = file.fd

    def close() -> None:
        file.fd = os.dup(reused)  # so that nobody else gets the number meanwhile
        group._close(handle, file)
        os.dup2(other, reused)

    file.lock = SlowLock(close)
    with path.with_name("other").open("w+b") as another:
        other = another.fileno()
        arguments: dict[str, dict[str, Any]] = {
            "read": {"count": 4, "may_wait": True},
            "write": {"buf_b64": Base64("eHh4")},
            "close": {},
        }
        with pytest.raises(QgaError, match=f"^handle '{handle}' has not been found$"):
            getattr(group, f"guest_file_{command}")(handle, **arguments[command], caller=caller)
        os.close(reused)
        assert another.read() == b""


def test_closed_files_are_closed(agent: AgentProcess, client: Client, path: Path) -> None:
    for _ in range(50):
        file = File(client, path, "w")
        assert agent.descriptors(str(path)) == [str(path)]
        file.close()
    assert agent.descriptors(str(path)) == []


def test_a_big_read_costs_little_memory_and_gives_it_back(tmp_path: Path) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        file = File(client, "/dev/zero")
        idle = agent.memory("VmRSS")
        assert file.read(MAX_READ) == (bytes(MAX_READ), False)
        assert agent.memory("VmHWM") - idle < 2 * MAX_READ
        client.call("guest-ping")
        assert agent.memory("VmRSS") - idle < 8 * MIB
