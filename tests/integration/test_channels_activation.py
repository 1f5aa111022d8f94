"""A listening socket that the service manager passes as descriptor 3: sd_listen_fds(3)."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.differences import differs
from tests.integration.agent_process import (
    COMMAND,
    PATIENCE,
    AgentProcess,
    Client,
    refused_start,
    started,
    wait_for,
)

# Puts descriptor argv[1] in place, says whose it is, and becomes the rest of argv.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""


def handing_over(fd: int, count: str = "1", pid_offset: int = 0) -> dict[str, Any]:
    """How to start an agent with `fd` passed to it."""
    return {
        "launcher": [sys.executable, "-c", HAND_OVER, str(fd), str(pid_offset)],
        "pass_fds": [fd],
        "env": {**os.environ, "LISTEN_FDS": count, "LISTEN_FDNAMES": "qga"},
    }


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "activated"))
        listener.listen()
        yield listener


@contextmanager
def activated(tmp_path: Path, listener: socket.socket, method: str) -> Iterator[Client]:
    how = handing_over(listener.fileno())
    with started(tmp_path, method=method, path=tmp_path / "unused", **how) as agent:
        with agent.connect(tmp_path / "activated") as client:
            yield client
        assert agent.stop() == 0


@pytest.mark.parametrize("method", ["unix-listen", "virtio-serial"])
def test_the_socket_is_served_whatever_the_method(
    tmp_path: Path, listener: socket.socket, method: str
) -> None:
    with activated(tmp_path, listener, method) as client:
        assert client.call("guest-ping") == {}
        assert not (tmp_path / "unused").exists()
    assert (tmp_path / "activated").exists(), "the service manager's socket is its own"


@pytest.mark.parametrize("options", [("-m", "unix-listen"), ("-m", "vsock-listen"), ("-d",)])
def test_a_method_without_a_path_takes_that_of_the_socket(
    tmp_path: Path, listener: socket.socket, options: tuple[str, ...]
) -> None:
    """The path is taken from the socket, also if the agent goes to the background."""
    how = handing_over(listener.fileno())
    pidfile = tmp_path / "pid"
    with started(tmp_path, *options, "-p", "", "-f", str(pidfile), **how) as agent:
        with agent.connect(tmp_path / "activated") as client:
            assert client.call("guest-ping") == {}
        if "-d" in options:
            os.kill(int(pidfile.read_text()), signal.SIGTERM)
            wait_for(lambda: not pidfile.exists(), "the daemon has exited")


def test_without_a_socket_the_path_is_required(tmp_path: Path, listener: socket.socket) -> None:
    complaint = refused_start(tmp_path, "-p", "", **handing_over(listener.fileno(), pid_offset=1))
    assert "must specify a path for this channel" in complaint


@pytest.mark.parametrize(
    ("options", "config"),
    [
        (["-m", "unix-listen"], ""),
        (["-m", "vsock-listen"], ""),
        ([], "[general]\nmethod=vsock-listen\n"),
        ([], "[general]\nmethod=unix-listen\npath=\n"),
    ],
)
def test_the_path_comes_with_the_socket(
    tmp_path: Path, listener: socket.socket, options: list[str], config: str
) -> None:
    how = handing_over(listener.fileno())
    settings = tmp_path / "qemu-ga.conf"
    settings.write_text(config)
    settings.chmod(0o644)
    command = [*how.pop("launcher"), *COMMAND, *options, "-c", str(settings), "-t", str(tmp_path)]
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, **how)
    agent = AgentProcess(process, tmp_path / "activated", errors)
    try:
        with agent.connect() as client:
            assert client.call("guest-ping") == {}
    finally:
        assert agent.stop() == 0, agent.log


def test_another_channel_needs_a_path_all_the_same(tmp_path: Path, listener: socket.socket) -> None:
    how = handing_over(listener.fileno())
    log = refused_start(tmp_path, config="[channel other]\nmethod=unix-listen\n", **how)
    assert "must specify a path for this channel" in log


def test_children_see_nothing_of_it(tmp_path: Path, listener: socket.socket) -> None:
    with activated(tmp_path, listener, "unix-listen") as client:
        script = "env; ls -l /proc/self/fd"
        pid = client.call("guest-exec", path="sh", arg=["-c", script], capture_output=True)["pid"]
        status = wait_for(lambda: ended(client, pid), "the script has ended")
    output = base64.b64decode(status["out-data"]).decode()
    assert "PATH=" in output
    assert "LISTEN_" not in output
    assert "socket:" not in output


def ended(client: Client, pid: int) -> dict[str, str] | None:
    status: dict[str, str] = client.call("guest-exec-status", pid=pid)
    return status if status["exited"] else None


def test_variables_for_another_process_mean_nothing(
    tmp_path: Path, listener: socket.socket
) -> None:
    how = handing_over(listener.fileno(), pid_offset=1)
    with started(tmp_path, **how) as agent:
        agent.wait_for_socket()


@differs("socket-activation")
@pytest.mark.parametrize("count", ["2", "0", "", "many"])
def test_another_number_than_one_is_refused(
    tmp_path: Path, listener: socket.socket, count: str
) -> None:
    complaint = refused_start(tmp_path, **handing_over(listener.fileno(), count))
    assert f"socket activation passed {count or 'no'} sockets; one is expected" in complaint


def test_a_socket_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    one, other = socket.socketpair()
    with one, other:
        complaint = refused_start(tmp_path, **handing_over(one.fileno()))
    assert "socket activation passed a socket that does not listen" in complaint


def test_what_is_not_a_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        complaint = refused_start(tmp_path, **handing_over(file.fileno()))
    assert "socket activation passed no usable socket" in complaint


def test_a_socket_of_another_family_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        complaint = refused_start(tmp_path, **handing_over(listener.fileno()))
    assert "AF_INET; unix and vsock sockets can be served" in complaint


@pytest.mark.parametrize("mark", ["", "@"], ids=["file", "abstract"])
def test_what_is_served_is_reported_by_where_the_socket_listens(tmp_path: Path, mark: str) -> None:
    path = f"{mark}{tmp_path}/here"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        listener.bind(path.replace("@", "\0"))
        listener.listen()
        how = handing_over(listener.fileno())
        how["env"]["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with started(tmp_path, **how) as agent:
            heard = [manager.recv(4096).decode() for _ in range(2)]
            assert heard == ["READY=1", f"STATUS=Serving {path}"]
            assert agent.stop() == 0
