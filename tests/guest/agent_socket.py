"""The host's end of an agent's channel: it sends bytes and reads lines.

The guest tests use this instead of a client library, so that they do not depend on ours.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from typing import Any

from .qmp import Lines

# Each sync has a number that no other has, whichever process sent it.
SYNC_IDS = itertools.count(os.getpid() << 20)
# Seconds to wait for one answer on a line that may lose the question.
SYNC_PATIENCE = 5.0


class AgentError(Exception):
    """The agent answered with an error; `error_class` is its class, the text its description."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(error["desc"])
        self.error_class = error["class"]


class AgentSocket:
    """A connection to an agent: by the path of QEMU's unix socket for the channel, or an existing
    socket."""

    def __init__(self, place: str | socket.socket, timeout: float = 30) -> None:
        self.timeout = timeout
        if isinstance(place, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(place)
        else:
            self.socket = place
        self.lines = Lines(self.socket)

    def __enter__(self) -> AgentSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.settimeout(self.timeout)
        self.socket.sendall(data)

    def read_line(self, timeout: float | None = None) -> bytes:
        """The next line, without its newline; TimeoutError or ConnectionError if none comes."""
        return self.lines.next(time.monotonic() + (self.timeout if timeout is None else timeout))

    def is_silent(self, seconds: float) -> bool:
        """Return whether no line arrives within this time."""
        try:
            self.read_line(seconds)
        except TimeoutError:
            return True
        return False

    def sync(self, timeout: float | None = None) -> None:
        """Synchronize with the agent by 0xFF and guest-sync-delimited.

        Replies that arrive before the delimiter belong to earlier requests and are dropped.
        """
        number = next(SYNC_IDS)
        self.send(b"\xff" + encode("guest-sync-delimited", {"id": number}))
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self.read_delimited(number, deadline)

    def sync_lossy(self, attempts: int = 20) -> None:
        """Like `sync`, for a serial line, which loses bytes sent before the agent has opened it."""
        for _ in range(attempts - 1):
            try:
                self.sync(SYNC_PATIENCE)
            except TimeoutError:
                continue
            return
        self.sync(SYNC_PATIENCE)

    def read_delimited(self, number: int, deadline: float) -> None:
        """Drop everything up to 0xFF and the reply with this `number`."""
        while True:
            _, delimiter, line = self.lines.next(deadline).rpartition(b"\xff")
            if delimiter and is_reply(line, number):
                return

    def execute(self, command: str, /, **arguments: Any) -> Any:
        """Run a command and return its result; `_` in the name of an argument becomes `-`.

        Raises AgentError when the agent answers with an error.
        """
        self.send(encode(command, {name.replace("_", "-"): v for name, v in arguments.items()}))
        reply = json.loads(self.read_line().lstrip(b"\xff"))
        if "error" in reply:
            raise AgentError(reply["error"])
        return reply["return"]

    def close(self) -> None:
        self.socket.close()


def is_reply(line: bytes, number: int) -> bool:
    """Whether a line is the reply to the sync with this number, and not noise.

    A serial line echoes what arrives before the agent has made it raw.
    """
    try:
        return bool(json.loads(line) == {"return": number})
    except ValueError:
        return False


def encode(command: str, arguments: dict[str, Any] | None = None) -> bytes:
    """Encode one request, with a trailing newline."""
    request: dict[str, Any] = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    return json.dumps(request).encode() + b"\n"
