"""The agent as a service: its messages to the service manager, here a socket of the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent_process import PATIENCE, listening, wait_for
from tests.integration.gates import Gate, with_gates

PING = "WATCHDOG=1"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        yield manager


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), **more}


def next_of(manager: socket.socket, *, but: str = "") -> str:
    """The next message to the service manager, except `but`."""
    while (heard := manager.recv(4096).decode()) == but:
        pass
    return heard


def test_systemd_is_notified_of_start_status_and_stop(
    manager: socket.socket, tmp_path: Path
) -> None:
    with listening(tmp_path, env=environment(tmp_path)) as agent:
        assert next_of(manager) == "READY=1"
        assert next_of(manager) == f"STATUS=Serving {agent.path}"
        with agent.connect() as client:
            client.call("guest-ping")
        assert agent.stop() == 0
    assert next_of(manager) == "STOPPING=1"


def test_it_hears_what_is_waited_for(manager: socket.socket, tmp_path: Path) -> None:
    config = "[channel other]\nmethod=virtio-serial\npath=/dev/virtio-ports/none\n"
    with listening(tmp_path, "-r", config=config, env=environment(tmp_path)) as agent:
        assert next_of(manager) == "READY=1"
        assert f"STATUS=Serving {agent.path}; waiting for /dev/virtio-ports/none" == next_of(
            manager
        )


def test_the_watchdog_is_pinged_while_a_command_hangs(
    manager: socket.socket, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    how = environment(tmp_path, WATCHDOG_USEC="100000")
    with with_gates(tmp_path, env=how) as agent, agent.connect() as client:
        client.send(gate.request)
        gate.wait_until_reached()
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):  # what was told before the command hung
            while True:
                manager.recv(4096)
        manager.settimeout(PATIENCE)
        assert [next_of(manager) for _ in range(5)] == [PING] * 5
        gate.open("at last")
        assert client.result() == "at last"


def test_children_do_not_hear_of_the_service_manager(
    manager: socket.socket, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    script = f"env >{told}.new; mv {told}.new {told}"
    how = environment(tmp_path, WATCHDOG_USEC="100000000")
    with listening(tmp_path, env=how) as agent, agent.connect() as client:
        client.call("guest-exec", path="/bin/sh", arg=["-c", script])
        wait_for(told.exists, "the child has told its environment")
        names = {line.partition("=")[0] for line in told.read_text().splitlines()}
        assert "PATH" in names
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & names
