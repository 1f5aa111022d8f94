"""A program runs in a guest, and others want its agent, which serves one client at a time.

They get their turn while it runs, and none of what it is sent or reports is lost.
"""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from qga.client import GuestAgent
from qga.client.sockets import CONNECTED, connected_paths, connections_to
from tests.integration.agent_process import wait_for
from tests.integration.qgactl_process import QGACTL, environment
from tests.integration.terminals import Terminal
from tests.unit.client_peer import Filesystems, Handler, Peer

REFUSAL = OSError("CommandNotFound", "Command qga-exec-read has been disabled")
MISSING = OSError("CommandNotFound", "The command has not been found")


class Program:
    """A program in the guest, which runs until it is told to `end`.

    `given`: the input that it has got, and the signals, in their order.
    """

    def __init__(self) -> None:
        self.end = threading.Event()
        self.given: list[bytes | str] = []
        self.handlers: dict[str, Handler] = {
            "guest-ping": lambda _: {},
            "qga-exec": lambda _: {"pid": 7},
            "qga-exec-read": self.read,
            "qga-exec-write": self.write,
            "qga-exec-signal": self.signal,
            "qga-get-ports": lambda _: [],
            "qga-get-freeze": lambda _: MISSING,
        }

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        ended = self.end.is_set()
        output = b"the end\n"[arguments["offset"] :] if ended else b""
        reply: dict[str, Any] = {"exited": ended, "out-total": 8 if ended else 0, "err-total": 0}
        if output:
            reply["out-data"] = base64.b64encode(output).decode()
        return {**reply, "exitcode": 5} if ended else reply

    def signal(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.given.append(arguments["signal"])
        return {}

    def write(self, arguments: dict[str, Any]) -> dict[str, Any]:
        data = base64.b64decode(arguments.get("buf-b64", ""))
        self.given.append("end of input" if arguments.get("eof") else data)
        return {"count": len(data)}


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def peer(program: Program, tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path / "socket", program.handlers)
    yield peer
    program.end.set()
    peer.close()


@contextmanager
def executing(peer: Peer, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`qgactl exec`, whose program runs."""
    pipe = subprocess.PIPE
    argv = [*QGACTL, "--timeout", "2", "exec", *options, "--", "x"]
    with subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(peer.address)
    ) as process:
        try:
            wait_for(lambda: polls(peer) > 0, "the program to run")
            yield process
        finally:
            process.kill()


def polls(peer: Peer) -> int:
    return sum(request["execute"] == "qga-exec-read" for request in peer.requests)


@contextmanager
def another_client(peer: Peer) -> Iterator[GuestAgent]:
    """One that has its turn, and keeps the agent to itself."""
    with closing(GuestAgent(peer.address, 60)) as client:
        client.ping()
        yield client


def outcome(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_others_have_their_turn_while_it_runs(peer: Peer, program: Program) -> None:
    with executing(peer) as process:
        for _ in range(3):
            with another_client(peer):
                assert process.poll() is None
        program.end.set()
        assert outcome(process) == (5, b"the end\n", b"")


def test_it_runs_on_without_a_turn(peer: Peer, program: Program) -> None:
    with executing(peer) as process:
        with another_client(peer):
            before = polls(peer)
            assert process.stdin
            process.stdin.write(b"input")
            process.stdin.close()
            process.stdin = None
            process.send_signal(signal.SIGINT)
            program.end.set()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(3)  # longer than one reply may take
            assert polls(peer) == before
            program.end.clear()
        wait_for(lambda: len(program.given) == 3, "what it was sent")
        assert set(program.given) == {b"input", "INT", "end of input"}
        program.end.set()
        assert outcome(process) == (5, b"the end\n", b"")


def test_the_user_may_leave_without_a_turn(peer: Peer) -> None:
    with executing(peer) as process, another_client(peer):
        assert process.stderr
        note = process.stderr.readline()
        assert note == b"qgactl: another client has the agent's socket; waiting (^C to quit)\n"
        process.send_signal(signal.SIGINT)
        status, _, err = outcome(process)
        assert status == 130
        assert b"process 7 may still run: timed out after 2 s: " in err
        assert b"another program is connected to this socket" in err


def test_a_shell_can_be_left_without_a_turn(peer: Peer) -> None:
    env = {**environment(peer.address), "TERM": "xterm"}
    with Terminal([*QGACTL, "--timeout", "2", "shell"], env) as screen:
        wait_for(lambda: polls(peer) > 0, "the shell to run")
        with another_client(peer):
            screen.expect(r"waiting (Enter ~. to quit)")
            screen.type("typed before\r~.")
            assert screen.wait() == 129
            screen.expect("process 7 may still run")


def test_a_timeout_holds_without_a_turn(peer: Peer) -> None:
    with executing(peer, "--timeout", "2") as process, another_client(peer):
        status, _, err = outcome(process)
        assert status == 124
        assert b"process 7 may still run: another client has the agent's socket" in err


def test_a_full_queue_is_joined_later(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    peer = Peer(path, program.handlers, backlog=0)
    with executing(peer) as process, socket.socket(socket.AF_UNIX) as other:
        peer.accepts.clear()
        other.connect(str(path))
        wait_for(lambda: not connections_to(str(path), connected_paths([CONNECTED])), "its leave")
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        other.close()
        peer.accepts.set()
        program.end.set()
        assert outcome(process) == (5, b"the end\n", b"")
    peer.close()


def test_it_outlives_a_freeze(peer: Peer, program: Program) -> None:
    filesystems = Filesystems()

    def unless_frozen(handler: Handler) -> Handler:
        return lambda arguments: REFUSAL if filesystems.frozen else handler(arguments)

    refusing = {name: unless_frozen(handler) for name, handler in program.handlers.items()}
    peer.handlers.update({**refusing, **filesystems.handlers, "guest-ping": lambda _: {}})
    with executing(peer) as process:
        with another_client(peer) as backup:
            assert backup.freeze().count == 2
            before = polls(peer)
        wait_for(lambda: polls(peer) > before, "a refusal")
        process.send_signal(signal.SIGINT)
        with another_client(peer) as backup:
            assert backup.thaw() == 2
        wait_for(lambda: program.given == ["INT"], "the signal")
        program.end.set()
        assert outcome(process) == (5, b"the end\n", b"")


def test_a_socket_that_nobody_waits_for_is_kept(peer: Peer, program: Program) -> None:
    with executing(peer) as process:
        syncs, before = peer.syncs, polls(peer)
        wait_for(lambda: polls(peer) > before + 20, "more polls")
        assert peer.syncs == syncs
        program.end.set()
        assert outcome(process)[0] == 5
