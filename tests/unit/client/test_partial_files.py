"""Which agents are asked to remove a file when its transfer fails."""

from __future__ import annotations

import hashlib
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qga.client.agent import GuestAgent
from qga.client.copies.guest_files import PORT_COMMANDS, SINCE_KEEP, WORTH_A_PORT, GuestFiles
from qga.client.copies.trees import Place
from qga.client.data_ports import DataPort, DataPorts
from qga.client.results import FileTransfer

CONTENT = bytes(WORTH_A_PORT)


class Agent:
    """Has these commands, and receives CONTENT; `asked` is how."""

    address = "unix:x"

    def __init__(self, commands: set[str]) -> None:
        names = [SimpleNamespace(name=name, enabled=True) for name in commands]
        self.info = lambda: SimpleNamespace(commands=names)
        self.asked: dict[str, Any] = {}

    def file_receive(self, *_: object, timeout: float, **how: Any) -> FileTransfer:
        assert timeout > 0
        self.asked = how
        return FileTransfer(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Drain(DataPort):
    """Takes everything."""

    def send(self, data: bytes | memoryview) -> int:
        return len(data)


@pytest.mark.parametrize(
    ("commands", "keep", "asked"),
    [
        ({SINCE_KEEP}, False, {"keep": False}),
        ({SINCE_KEEP}, True, {}),
        (set(), False, {}),
    ],
    ids=["a copy", "one to be resumed", "qga 0.1"],
)
def test_a_partial_file_is_kept_or_not(
    commands: set[str], keep: bool, asked: dict[str, bool]
) -> None:
    ours, theirs = socket.socketpair()
    agent = Agent(PORT_COMMANDS | commands)
    ports = SimpleNamespace(open_free=lambda _: Drain("org.qga.data.0", ours))
    with theirs, ours:
        files = GuestFiles(cast(GuestAgent, agent), ports=cast(DataPorts, ports))
        files.write(Place("/tmp/x"), 0, len(CONTENT), iter([CONTENT]), keep)
    assert agent.asked == asked
