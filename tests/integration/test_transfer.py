"""Files over a data port."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import (
    AgentProcess,
    Client,
    Refused,
    refused,
    request,
    wait_for,
)
from tests.integration.data_ports import NAME, HostEnd, with_port

CONTENT = bytes(range(256)) * 2000
LEFT = f"the host disconnected from the port '{NAME}'"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, HostEnd]]:
    with with_port(tmp_path_factory.mktemp("agent")) as (agent, host):
        yield agent, host


@pytest.fixture
def port(served: tuple[AgentProcess, HostEnd]) -> Iterator[tuple[Client, HostEnd]]:
    agent, host = served
    host.forget()
    with agent.connect() as client:
        yield client, host


def summary(data: bytes) -> dict[str, Any]:
    return {"count": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_ports_are_listed(tmp_path: Path) -> None:
    with with_port(tmp_path) as (agent, _), agent.connect() as client:
        device = f"{tmp_path}/dev/vport0p1"
        assert client.call("qga-get-ports") == [{"name": NAME, "device": device, "busy": False}]
        (tmp_path / "debug").mkdir()
        facts = "guest_connected: 0\nhost_connected: 1\nis_console: no\n"
        (tmp_path / "debug/vport0p1").write_text(facts)
        (listed,) = client.call("qga-get-ports")
        assert listed["host-connected"] is True


def test_a_file_is_sent(port: tuple[Client, HostEnd], tmp_path: Path) -> None:
    client, host = port
    (tmp_path / "file").write_bytes(CONTENT)
    client.send(request("qga-file-send", path=f"{tmp_path}/file", port=NAME))
    assert host.take(len(CONTENT)) == CONTENT
    assert client.result() == summary(CONTENT)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"offset": 7, "count": 3}, b"789"),
        ({"offset": 8}, b"89"),
        ({"count": 100}, b"0123456789"),
        ({"offset": 100}, b""),
        ({"count": 0}, b""),
    ],
)
def test_a_part_of_a_file_is_sent_and_summed_up(
    port: tuple[Client, HostEnd], tmp_path: Path, where: dict[str, int], expected: bytes
) -> None:
    client, host = port
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert client.call("qga-file-send", path=str(path), port=NAME, **where) == summary(expected)
    assert host.take(len(expected)) == expected
    assert client.call("qga-file-checksum", path=str(path), **where) == summary(expected)


def test_nothing_comes_of_an_empty_file_however_far(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    for offset in (0, 48 * 1024**2, 2**40):
        assert client.call("qga-file-checksum", path=str(path), offset=offset) == summary(b"")


@pytest.mark.parametrize("command", ["qga-file-send", "qga-file-checksum"])
def test_what_is_no_regular_file_is_not_even_opened(
    port: tuple[Client, HostEnd], tmp_path: Path, command: str
) -> None:
    """A user may put a link to a device into the directory that the host copies."""
    client, _ = port
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    given = {"path": str(link), **({"port": NAME} if command == "qga-file-send" else {})}
    # open(2) of a writer waits for a reader, however shortly that is there.
    with subprocess.Popen(["sh", "-c", 'exec >"$1"', "sh", fifo]) as writer:
        try:
            waits_in = Path(f"/proc/{writer.pid}/wchan")
            wait_for(lambda: waits_in.read_text() == "wait_for_partner", "a writer that waits")
            with refused(f"failed to read file '{link}': not a regular file"):
                client.call(command, **given)
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(0.3)
        finally:
            writer.kill()


def test_a_file_is_received(port: tuple[Client, HostEnd], tmp_path: Path) -> None:
    client, host = port
    path = tmp_path / "file"
    path.write_bytes(b"longer than what comes" * 100_000)
    client.send(request("qga-file-receive", path=str(path), port=NAME, count=len(CONTENT)))
    host.send(CONTENT)
    assert client.result() == summary(CONTENT)
    assert path.read_bytes() == CONTENT


def test_the_rest_of_a_file_is_received(port: tuple[Client, HostEnd], tmp_path: Path) -> None:
    client, host = port
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    host.send(b"ab")
    client.call("qga-file-receive", path=str(path), port=NAME, count=2, offset=9)
    assert path.read_bytes() == b"012345678ab"


def test_no_more_is_taken_than_asked_for(port: tuple[Client, HostEnd], tmp_path: Path) -> None:
    client, host = port
    host.send(b"first")
    client.call("qga-file-receive", path=f"{tmp_path}/one", port=NAME, count=3)
    assert (tmp_path / "one").read_bytes() == b"fir"


def test_what_a_file_cannot_take_is_reported(port: tuple[Client, HostEnd]) -> None:
    client, host = port
    host.send(b"abc")
    with refused("interrupted after 0 bytes: No space left on device"):
        client.call("qga-file-receive", path="/dev/full", port=NAME, count=3)


INVALID = "value '-1' is invalid for argument"


@pytest.mark.parametrize(
    ("command", "arguments", "reason"),
    [
        ("send", {"path": "/none"}, "No such file or directory"),
        ("send", {"path": "/"}, "failed to read file '/': Is a directory"),
        ("send", {"path": "/", "offset": -1}, f"{INVALID} offset"),
        ("receive", {"path": "/", "count": -1}, f"{INVALID} count"),
        ("receive", {"path": "/none", "count": 1, "offset": 1}, "No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_reported(
    port: tuple[Client, HostEnd], command: str, arguments: dict[str, Any], reason: str
) -> None:
    client, _ = port
    assert reason in client.refusal(f"qga-file-{command}", port=NAME, **arguments)


def test_rules_for_files_hold(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    for path in ("open/file", "closed"):
        (tmp_path / path).write_text("content")
    config = f"[files]\nread={tmp_path}/open/\nwrite={tmp_path}/open/\n"
    with with_port(tmp_path, config) as (agent, host), agent.connect() as client:
        path = f"{tmp_path}/open/file"
        assert client.call("qga-file-send", path=path, port=NAME)["count"] == 7
        assert client.call("qga-file-checksum", path=path)["count"] == 7
        host.take(7)
        for command, more in (
            ("qga-file-send", {"port": NAME}),
            ("qga-file-checksum", {}),
            ("qga-file-receive", {"port": NAME, "count": 0}),
        ):
            reason = client.refusal(command, path=f"{tmp_path}/closed", **more)
            assert reason.startswith(f"Command {command} has been refused: '{tmp_path}/closed' is")
    assert (tmp_path / "closed").read_text() == "content"


@pytest.mark.parametrize(
    ("config", "usable"),
    [
        ("profile=audit", set()),
        ("profile=file-read", {"send", "checksum"}),
        ("profile=file-write", {"send", "checksum", "receive"}),
        ("block-rpcs=guest-file-open", set()),
        ("block-rpcs=guest-file-read", {"receive"}),
        ("block-rpcs=guest-file-write", {"send", "checksum"}),
    ],
)
def test_what_the_administrator_has_switched_off_is_off(
    tmp_path: Path, config: str, usable: set[str]
) -> None:
    with with_port(tmp_path, f"[general]\n{config}\n") as (agent, _), agent.connect() as client:
        commands = client.call("guest-info")["supported_commands"]
        enabled = {each["name"] for each in commands if each["enabled"]}
        named = {name for name in enabled if name.startswith("qga-file-")}
        assert named == {f"qga-file-{name}" for name in usable}
        with pytest.raises(Refused) as caught:
            client.call("qga-exec" if "profile" in config else "qga-file-nothing", path="true")
        assert caught.value.error_class == "CommandNotFound"


def test_a_transfer_holds_up_no_other_connection(
    port: tuple[Client, HostEnd], served: tuple[AgentProcess, HostEnd], tmp_path: Path
) -> None:
    client, host = port
    client.send(request("qga-file-receive", path=f"{tmp_path}/file", port=NAME, count=2))
    with served[0].connect() as other:
        assert other.call("guest-ping") == {}
    host.send(b"ok")
    assert client.result()["count"] == 2


def test_a_host_that_leaves_ends_a_transfer(tmp_path: Path) -> None:
    with with_port(tmp_path) as (agent, host), agent.connect() as client:
        path = tmp_path / "file"
        client.send(request("qga-file-receive", path=str(path), port=NAME, count=10))
        wait_for(path.exists, "the transfer's start")
        host.close()
        with refused(f"interrupted after 0 bytes: {LEFT}"):
            client.result()
        assert agent.descriptors("/dev/pts") == []


@pytest.mark.parametrize("keep", [True, False])
def test_what_came_before_the_host_left_is_kept_or_removed(tmp_path: Path, keep: bool) -> None:
    with with_port(tmp_path) as (agent, host), agent.connect() as client:
        path = tmp_path / "file"
        arguments = {"path": str(path), "port": NAME, "count": 10, "keep": keep}
        client.send(request("qga-file-receive", **arguments))
        wait_for(path.exists, "the transfer's start")
        host.close()
        with refused(f"interrupted after 0 bytes: {LEFT}"):
            client.result()
        assert path.exists() is keep


def test_a_client_that_left_gets_its_file_removed(tmp_path: Path) -> None:
    with with_port(tmp_path) as (agent, _host):
        path = tmp_path / "file"
        with agent.connect() as client:
            arguments = {"path": str(path), "port": NAME, "count": 10, "keep": False}
            client.send(request("qga-file-receive", **arguments))
            wait_for(path.exists, "the transfer's start")
        wait_for(lambda: not path.exists(), "the file to be removed")


@pytest.mark.parametrize("there", ["nothing", "another file", "a link to it"])
def test_only_the_file_itself_is_removed(tmp_path: Path, there: str) -> None:
    with with_port(tmp_path) as (agent, host), agent.connect() as client:
        path, moved = tmp_path / "file", tmp_path / "moved"
        arguments = {"path": str(path), "port": NAME, "count": 10, "keep": False}
        client.send(request("qga-file-receive", **arguments))
        wait_for(path.exists, "the transfer's start")
        path.rename(moved)
        if there == "another file":
            path.write_text("kept")
        elif there == "a link to it":
            path.symlink_to(moved)
        before = sorted(each.name for each in tmp_path.iterdir())
        host.close()
        with refused(f"interrupted after 0 bytes: {LEFT}"):
            client.result()
        assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_a_file_whose_name_has_a_nul_is_removed(tmp_path: Path) -> None:
    with with_port(tmp_path) as (agent, host), agent.connect() as client:
        arguments = {"path": f"{tmp_path}/a\0b", "port": NAME, "count": 10, "keep": False}
        client.send(request("qga-file-receive", **arguments))
        there = os.fsencode(tmp_path) + b"/a\xc0\x80b"
        wait_for(lambda: os.path.exists(there), "the transfer's start")
        host.close()
        with refused(f"interrupted after 0 bytes: {LEFT}"):
            client.result()
        assert not os.path.exists(there)


def test_a_file_that_cannot_be_removed_any_more(tmp_path: Path) -> None:
    """The directory has gone: the host gets the reason why the transfer ended."""
    with with_port(tmp_path) as (agent, host), agent.connect() as client:
        folder = tmp_path / "folder"
        folder.mkdir()
        path = folder / "file"
        arguments = {"path": str(path), "port": NAME, "count": 10, "keep": False}
        client.send(request("qga-file-receive", **arguments))
        wait_for(path.exists, "the transfer's start")
        folder.rename(tmp_path / "moved")
        folder.touch()
        host.close()
        with refused(f"interrupted after 0 bytes: {LEFT}"):
            client.result()
        assert (tmp_path / "moved/file").exists()


def test_only_a_regular_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with with_port(tmp_path) as (agent, host), agent.connect() as client:
        arguments = {"path": str(path), "port": NAME, "count": 10, "keep": False}
        client.send(request("qga-file-receive", **arguments))
        wait_for(lambda: agent.descriptors(str(path)), "the transfer's start")
        host.close()
        with refused(f"interrupted after 0 bytes: {LEFT}"):
            client.result()
    os.close(reader)
    assert path.exists()
