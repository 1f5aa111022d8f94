"""A real agent process, and a plain client that does not use our client library."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional, TypeVar

import pytest

PATIENCE = 30.0
"""Seconds before a test gives up. Nothing that works takes that long."""

COMMAND = [sys.executable, "-m", "qga"]

T = TypeVar("T")


class Refused(Exception):
    """An error reply; `error_class` is its class, the text its description."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(error["desc"])
        self.error_class = error["class"]


def request(execute: str, /, tag: Any = None, **arguments: Any) -> bytes:
    """The bytes of a request whose id is `tag`. `_` in the name of an argument becomes `-`."""
    value: dict[str, Any] = {"execute": execute}
    if arguments:
        value["arguments"] = {name.replace("_", "-"): arguments[name] for name in arguments}
    if tag is not None:
        value["id"] = tag
    return json.dumps(value).encode()


def refused(reason: str) -> Any:
    """Expect an error reply with just this description."""
    return pytest.raises(Refused, match=f"^{re.escape(reason)}$")


def wait_for(attempt: Callable[[], Optional[T]], what: str, patience: float = PATIENCE) -> T:
    """Call `attempt` until its result is true, for at most this many seconds."""
    deadline = time.monotonic() + patience
    while True:
        result = attempt()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


class Client:
    """The host's end of a channel: bytes out, lines in."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self._received = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def half_close(self) -> None:
        """Shut down the sending side."""
        self.socket.shutdown(socket.SHUT_WR)

    def has_data(self) -> bool:
        """Whether there is anything to read now."""
        return bool(self._received or select.select([self.socket], [], [], 0)[0])

    def line(self) -> bytes:
        """The next line with its newline; a shorter one, or b"", if the agent disconnects."""
        end = self._received.find(b"\n")
        while end < 0:
            searched = len(self._received)
            data = self.socket.recv(1024 * 1024)
            self._received += data
            end = self._received.find(b"\n", searched) if data else searched
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line

    def reply(self) -> dict[str, Any]:
        """The next line as an object."""
        line = self.line()
        assert line.endswith(b"\n"), f"the agent hung up after {line!r}"
        value: dict[str, Any] = json.loads(line)
        return value

    def replies(self, count: int) -> list[dict[str, Any]]:
        return [self.reply() for _ in range(count)]

    def result(self) -> Any:
        """The result in the next reply. Raises Refused if it is an error."""
        reply = self.reply()
        if "error" in reply:
            raise Refused(reply["error"])
        return reply["return"]

    def call(self, execute: str, /, **arguments: Any) -> Any:
        """The result of a command, if no other one is in progress."""
        self.send(request(execute, **arguments))
        return self.result()

    def refusal(self, execute: str, /, **arguments: Any) -> str:
        """The description of the error that a command returns."""
        try:
            result = self.call(execute, **arguments)
        except Refused as error:
            return str(error)
        raise AssertionError(f"{execute} was not refused: {result}")

    def rest(self) -> bytes:
        """Everything until the agent disconnects."""
        lines = iter(self.line, b"")
        return b"".join(lines)


class AgentProcess:
    """A running agent; `path` is its socket or device."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, errors: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.path = path
        self._errors = errors

    @property
    def log(self) -> str:
        """Its standard error so far."""
        return self._errors.read_text()

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    @property
    def waits(self) -> bool:
        """Whether it has nothing to do and sleeps in epoll_wait(2)."""
        return "poll" in Path(f"/proc/{self.pid}/wchan").read_text()

    def descriptors(self, *prefixes: str) -> list[str]:
        """Its open files whose names begin with one of the prefixes."""
        links = []
        for entry in os.scandir(f"/proc/{self.pid}/fd"):
            with suppress(FileNotFoundError):  # closed since
                links.append(os.readlink(entry))
        return sorted(link for link in links if link.startswith(prefixes))

    def memory(self, kind: str) -> int:
        """Bytes; `kind` is VmRSS (now) or VmHWM (peak), as in proc(5)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    def connect(self, path: Path | None = None) -> Client:
        """A client of the agent, or of the channel that listens at `path`."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path or self.path))
        except OSError:
            connection.close()
            raise
        return Client(connection)

    def wait_for_socket(self, path: Path | None = None) -> None:
        with wait_for(lambda: self._try_connect(path), "the agent listens") as client:
            client.call("guest-ping")

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log, f"{text!r} in the log")

    def stop(self) -> int:
        """Terminate it as an administrator would, and return its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()  # one that does not end has failed, and must not stay
            self.process.wait()

    def _try_connect(self, path: Path | None) -> Client | None:
        # 0: with -d it goes on in the background.
        assert self.process.poll() in (None, 0), f"the agent has ended: {self.log}"
        try:
            return self.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None


def start(
    folder: Path,
    *options: str,
    method: str = "unix-listen",
    path: Path | str | None = None,
    config: str = "",
    launcher: Sequence[str] = (),
    command: Sequence[str] = COMMAND,
    **how: Any,
) -> AgentProcess:
    """An agent with its state, log and by default its socket in `folder`.

    config: the text of its configuration file.
    launcher: a program with arguments that runs the command after them.
    command: the agent itself.
    how: more for subprocess.Popen.
    """
    place = path or folder / "socket"
    settings, errors = folder / "qemu-ga.conf", folder / "stderr"
    settings.write_text(config)
    settings.chmod(0o644)
    argv = [*launcher, *command, "-m", method, "-p", str(place), "-t", str(folder)]
    argv += ["-c", str(settings), *options]
    with errors.open("ab") as stderr:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stderr, **how)
    return AgentProcess(process, Path(place), errors)


@contextmanager
def started(folder: Path, *options: str, **how: Any) -> Iterator[AgentProcess]:
    """As `start`, as a context: the agent is terminated at the end, and must not have failed."""
    agent = start(folder, *options, **how)
    try:
        yield agent
        assert agent.process.poll() in (None, 0), f"the agent has ended: {agent.log}"
    finally:
        agent.stop()


@contextmanager
def listening(folder: Path, *options: str, **how: Any) -> Iterator[AgentProcess]:
    """As `started`, with a unix socket that already accepts clients."""
    with started(folder, *options, **how) as agent:
        agent.wait_for_socket()
        yield agent


def refused_start(folder: Path, *options: str, **how: Any) -> str:
    """The standard error of an agent that must refuse to start, with status 1."""
    agent = start(folder, *options, **how)
    try:
        status = agent.process.wait(PATIENCE)
    finally:
        agent.stop()
    assert status == 1, agent.log
    assert "Traceback" not in agent.log
    return agent.log
