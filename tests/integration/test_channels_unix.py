"""A unix socket as a channel: its owner, and several channels with different rules."""

from __future__ import annotations

import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from tests.differences import differs
from tests.integration.agent_process import (
    Client,
    Refused,
    listening,
    refused_start,
    start,
    started,
)


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(tmp_path / "socket"))
    with listening(tmp_path) as agent, agent.connect() as client:
        assert client.call("guest-ping") == {}


def test_the_socket_of_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    first = start(tmp_path)
    first.wait_for_socket()
    first.process.kill()
    first.process.wait()
    assert stat.S_ISSOCK(first.path.stat().st_mode)
    with listening(tmp_path):
        pass


@pytest.mark.parametrize("backlog", ["served", "full"])
def test_a_socket_that_somebody_listens_on_is_refused(tmp_path: Path, backlog: str) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as owner, socket.socket(socket.AF_UNIX) as client:
        owner.bind(str(path))
        owner.listen(0)
        if backlog == "full":
            client.connect(str(path))
        complaint = refused_start(tmp_path)
        assert f"Failed to bind socket to {path}: another program" in complaint
        assert "failed to create guest agent channel" in complaint
        if backlog == "served":
            owner.accept()[0].close()  # the agent's look at it
        with socket.socket(socket.AF_UNIX) as other:
            other.setblocking(False)
            if backlog == "served":
                other.connect(str(path))


@differs("only-dead-sockets")
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_file_that_is_not_a_socket_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    before = path.lstat()
    assert f"{path}: the file exists and is not a socket" in refused_start(tmp_path)
    assert path.lstat() == before


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "socket"
    complaint = refused_start(tmp_path, path=path)
    assert f"Failed to bind socket to {path}: No such file or directory" in complaint


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120)
    assert f"Failed to bind socket to {path}: " in refused_start(tmp_path, path=path)


def test_with_retry_path_the_socket_is_made_once_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "late" / "socket"
    with started(tmp_path, "--retry-path", path=path) as agent:
        agent.wait_for_log(f"Failed to bind socket to {path}: No such file or directory")
        path.parent.mkdir()
        agent.wait_for_socket()
        with agent.connect() as client:
            assert client.call("guest-ping") == {}


@differs("socket-removed")
def test_the_socket_is_removed_when_the_agent_exits(tmp_path: Path) -> None:
    with listening(tmp_path) as agent:
        assert agent.stop() == 0
        assert not agent.path.exists()


def test_another_agents_socket_is_not_removed(tmp_path: Path) -> None:
    with listening(tmp_path) as agent:
        agent.path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(agent.path))
            assert agent.stop() == 0
            assert stat.S_ISSOCK(agent.path.stat().st_mode)


def test_connections_are_closed_when_the_agent_exits(tmp_path: Path) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        client.call("guest-ping")
        agent.stop()
        assert client.rest() == b""


def test_channels_have_rules_of_their_own(tmp_path: Path) -> None:
    more = {name: tmp_path / f"{name}.socket" for name in ("monitoring", "files")}
    config = f"""
[general]
block-rpcs=guest-get-osinfo

[channel monitoring]
method=unix-listen
path={more["monitoring"]}
allow-rpcs=guest-ping,guest-info,guest-get-time,guest-get-host-name
block-rpcs=guest-get-host-name

[channel files]
method=unix-listen
path={more["files"]}
block-rpcs=guest-exec
"""
    with listening(tmp_path, config=config) as agent:
        with (
            agent.connect() as main,
            agent.connect(more["monitoring"]) as monitoring,
            agent.connect(more["files"]) as files,
        ):
            everything = set(enabled_commands(main)) | {"guest-get-osinfo"}
            assert {"guest-exec", "guest-file-open", "guest-ping"} <= everything
            assert enabled_commands(main) == everything - {"guest-get-osinfo"}
            assert enabled_commands(monitoring) == {"guest-ping", "guest-info", "guest-get-time"}
            assert "guest-exec" not in enabled_commands(files)
            assert "guest-file-open" in enabled_commands(files)
            check_refusal(main, "guest-get-osinfo")
            check_refusal(monitoring, "guest-get-host-name")
            check_refusal(monitoring, "guest-exec")
            check_refusal(files, "guest-exec")
            assert main.call("guest-exec", path="true")["pid"] > 0
            assert monitoring.call("guest-get-time") > 0
            check_handles_are_not_shared(main, files, tmp_path / "file")
        agent.stop()
        assert not any(path.exists() for path in (agent.path, *more.values()))


def enabled_commands(client: Client) -> set[str]:
    commands = client.call("guest-info")["supported_commands"]
    return {entry["name"] for entry in commands if entry["enabled"]}


def check_refusal(client: Client, name: str) -> None:
    with pytest.raises(Refused) as refusal:
        client.call(name)
    assert refusal.value.error_class == "CommandNotFound"
    assert str(refusal.value) == (f"Command {name} has been disabled: the command is not allowed")


def check_handles_are_not_shared(one: Client, other: Client, path: Path) -> None:
    handle = one.call("guest-file-open", path=str(path), mode="w")
    refusal = other.refusal("guest-file-write", handle=handle, buf_b64="aGk=")
    assert refusal == f"handle '{handle}' has not been found"
    one.call("guest-file-close", handle=handle)
    assert path.read_text() == ""


def test_one_channel_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "socket"
    config = f"[channel second]\nmethod=unix-listen\npath={path}\n"
    assert str(path) in refused_start(tmp_path, config=config)
    assert not (tmp_path / "socket").exists()


def test_without_descriptors_new_clients_wait_and_the_loop_does_not_spin(tmp_path: Path) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        handles = [client.call("guest-file-open", path="/dev/null") for _ in range(5)]
        highest = max(map(int, os.listdir(f"/proc/{agent.pid}/fd")))
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (highest + 1, highest + 1))
        with agent.connect() as waiting:
            agent.wait_for_log("accept: Too many open files")
            for _ in range(1000):
                client.call("guest-ping")
            assert agent.log.count("accept: Too many open files") < 20
            client.call("guest-file-close", handle=handles.pop())
            assert waiting.call("guest-ping") == {}
