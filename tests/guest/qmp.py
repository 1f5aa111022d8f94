"""A small QMP client, with which tests control the machine from outside.

It uses no thread: events that arrive before a reply are kept in order until somebody waits for
them.
"""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, or went away."""


class Lines:
    """The lines that arrive on a socket, each by a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.pending = bytearray()

    def next(self, deadline: float) -> bytes:
        """The next line, without its newline.

        Raises TimeoutError when it is not there by `deadline` (of time.monotonic), and
        ConnectionError when the other end closes first.
        """
        searched = 0
        while (end := self.pending.find(b"\n", searched)) < 0:
            searched = len(self.pending)
            self.pending += self.receive(deadline)
        line = bytes(self.pending[:end])
        del self.pending[: end + 1]
        return line

    def receive(self, deadline: float) -> bytes:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"no line in time; so far: {bytes(self.pending[-200:])!r}")
        self.socket.settimeout(remaining)
        try:
            data = self.socket.recv(1 << 20)
        except socket.timeout:
            raise TimeoutError(f"no line in time; so far: {bytes(self.pending[-200:])!r}") from None
        if not data:
            raise ConnectionError(f"the other end closed; so far: {bytes(self.pending[-200:])!r}")
        return data


class Qmp:
    """A QMP connection, negotiated."""

    def __init__(self, sock: socket.socket, timeout: float = 60) -> None:
        self.socket = sock
        self.lines = Lines(sock)
        self.events: deque[dict[str, Any]] = deque()
        greeting = json.loads(self.lines.next(time.monotonic() + timeout))
        if "QMP" not in greeting:
            raise QmpError(f"not a QMP greeting: {greeting}")
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command and return its result; QmpError when QEMU refuses it."""
        request = {"execute": command, "arguments": arguments or {}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + 60
        while True:
            message = json.loads(self.lines.next(deadline))
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_event(self, name: str, timeout: float = 60, **data: Any) -> dict[str, Any]:
        """The next event called `name` whose data has these members.

        Events before it are dropped.  Raises TimeoutError when there is none in `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            event = self.events.popleft() if self.events else self.read_event(deadline)
            found = event.get("data", {})
            if event["event"] == name and data.items() <= found.items():
                return event

    def forget_events(self) -> None:
        """Drop the events that have happened so far."""
        self.execute("query-status")
        self.events.clear()

    def read_event(self, deadline: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.lines.next(deadline))
        return message

    def close(self) -> None:
        self.socket.close()
