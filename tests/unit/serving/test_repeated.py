"""A request that is repeated byte for byte is answered in a short way, with the same effects."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qga import CommandGroup, QgaError, command
from qga.agent import Agent
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving.session import Session
from qga.settings.config import ChannelConfig, Config

PING = b'{"execute": "guest-ping"}\n'
COUNT = b'{"execute": "qga-count"}\n'
FILL = b'{"execute": "qga-fill"}\n'
NAME = b'{"execute": "guest-get-host-name"}\n'


class Counting(CommandGroup):
    """Counts its calls, and fails from the fourth on."""

    count = 0
    changed = 0

    @command(access="audit", blocking=False)
    def qga_count(self) -> int:
        self.count += 1
        if self.count > 3:
            raise QgaError("no more")
        return self.count

    @command(access="unrestricted", blocking=False)
    def qga_change(self) -> int:
        self.changed += 1
        return self.changed

    @command(access="audit", blocking=False)
    def qga_fill(self) -> str:
        return "x" * 100_000


class Sink:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, _priority: int, text: str, _fields: dict[str, str]) -> None:
        self.lines.append(text)

    def reopen(self) -> None:
        pass


class Dialogue:
    """A client of an agent in this process."""

    def __init__(
        self, folder: Path, policy: Policy, verbose: bool = False, is_port: bool = False
    ) -> None:
        main = ChannelConfig(method="unix-listen", path=str(folder / "s"))
        self.sink = Sink()
        log = Log(self.sink, system=self.sink, verbose=verbose)
        self.agent = Agent(Config((main,), statedir=str(folder), verbose=verbose), log)
        self.counting = Counting(self.agent)
        self.agent.registry.add(self.counting)
        self.here, self.there = socket.socketpair()
        self.here.settimeout(5)
        self.there.setblocking(False)
        self.session = Session(
            self.agent,
            self.there.fileno(),
            Caller("main", policy),
            lambda *_: None,
            short_read_empties=not is_port,
            outlives_peer=is_port,
        )
        self.session.start()

    def run(self, seconds: float = 0.02) -> None:
        self.agent.loop.call_later(seconds, self.agent.loop.stop)
        self.agent.loop.run()

    def ask(self, *pieces: bytes) -> list[dict[str, Any]]:
        """The replies to bytes that come in these pieces."""
        for piece in pieces:
            self.here.sendall(piece)
            self.run()
        replies = b""
        while not replies.endswith(b"\n"):
            replies += self.here.recv(1 << 20)
            self.run(0)
        return [json.loads(line) for line in replies.splitlines()]

    def close(self) -> None:
        self.session.close()
        self.here.close()
        self.there.close()
        self.agent.close()


@pytest.fixture
def dialogue(tmp_path: Path) -> Iterator[Dialogue]:
    dialogue = Dialogue(tmp_path, Policy())
    yield dialogue
    dialogue.close()


def learned(dialogue: Dialogue) -> set[bytes]:
    return set(dialogue.session._dispatcher._repeated)


def test_the_handler_is_called_each_time(dialogue: Dialogue) -> None:
    replies = [dialogue.ask(COUNT) for _ in range(3)]
    assert replies == [[{"return": 1}], [{"return": 2}], [{"return": 3}]]
    assert learned(dialogue) == {COUNT}


def test_an_error_is_answered_as_usual(dialogue: Dialogue) -> None:
    for _ in range(3):
        dialogue.ask(COUNT)
    assert dialogue.ask(COUNT) == [{"error": {"class": "GenericError", "desc": "no more"}}]


def test_frozen_means_frozen(dialogue: Dialogue) -> None:
    for _ in range(3):
        assert "return" in dialogue.ask(NAME)[0]
    dialogue.agent.frozen = True
    assert dialogue.ask(NAME)[0]["error"]["class"] == "CommandNotFound"
    assert dialogue.ask(PING) == [{"return": {}}]
    dialogue.agent.frozen = False
    assert "return" in dialogue.ask(NAME)[0]


def test_what_is_not_allowed_is_refused_and_recorded_each_time(tmp_path: Path) -> None:
    dialogue = Dialogue(tmp_path, Policy(ChannelConfig("main", "", "", block_rpcs=("qga-count",))))
    try:
        for _ in range(4):
            assert dialogue.ask(COUNT)[0]["error"]["class"] == "CommandNotFound"
        assert sum("qga-count refused" in line for line in dialogue.sink.lines) == 4
        assert COUNT not in learned(dialogue)
    finally:
        dialogue.close()


def test_a_change_is_recorded_each_time(dialogue: Dialogue) -> None:
    for number in range(1, 5):
        assert dialogue.ask(b'{"execute": "qga-change"}\n') == [{"return": number}]
    assert sum("qga-change" in line for line in dialogue.sink.lines) == 4


def test_a_verbose_log_shows_each_request(tmp_path: Path) -> None:
    dialogue = Dialogue(tmp_path, Policy(), verbose=True)
    try:
        for _ in range(4):
            dialogue.ask(PING)
        assert sum("read data: guest-ping" in line for line in dialogue.sink.lines) == 4
    finally:
        dialogue.close()


def test_the_same_line_inside_a_request_is_a_part_of_it(dialogue: Dialogue) -> None:
    for _ in range(3):
        dialogue.ask(PING)
    parts = (b'{"execute": "guest-sync", "id":\n', PING, b', "arguments": {"id": 7}}\n')
    assert dialogue.ask(*parts) == [{"return": 7, "id": {"execute": "guest-ping"}}]


def test_the_place_of_a_later_fault(dialogue: Dialogue) -> None:
    for _ in range(4):
        dialogue.ask(PING)
    [reply] = dialogue.ask(b"  }\n")
    assert reply["error"]["desc"].startswith("5:3: ")


def test_a_long_reply_leaves_whole(dialogue: Dialogue) -> None:
    dialogue.there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    for _ in range(4):
        assert dialogue.ask(FILL) == [{"return": "x" * 100_000}]
    assert learned(dialogue)


def test_a_reply_waits_for_room(dialogue: Dialogue) -> None:
    for _ in range(3):
        dialogue.ask(PING)
    size = fill(dialogue.there)
    dialogue.here.sendall(PING)
    dialogue.run()
    while size:
        size -= len(dialogue.here.recv(size))
    dialogue.run()
    assert dialogue.here.recv(100) == b'{"return": {}}\n'


def test_the_rest_of_a_reply_is_not_for_the_next_client_of_a_port(tmp_path: Path) -> None:
    dialogue = Dialogue(tmp_path, Policy(), is_port=True)
    dialogue.there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    for _ in range(3):
        dialogue.ask(FILL)
    dialogue.here.sendall(FILL)
    dialogue.run()
    assert learned(dialogue)
    assert dialogue.session._output.size > 0
    dialogue.here.shutdown(socket.SHUT_RDWR)
    dialogue.run(0.2)
    assert dialogue.session._output.size == 0
    dialogue.close()


def fill(sock: socket.socket) -> int:
    """Send until there is no room. Returns the number of bytes."""
    size = 0
    while True:
        try:
            size += os.write(sock.fileno(), b"x" * 1000)
        except BlockingIOError:
            return size


def test_lines_that_differ_do_not_pile_up(dialogue: Dialogue) -> None:
    for number in range(100):
        line = b'{"execute": "guest-ping"' + b" " * number + b"}\n"
        for _ in range(2):
            dialogue.here.sendall(line)
            dialogue.run(0)
    assert 0 < len(learned(dialogue)) <= 64
