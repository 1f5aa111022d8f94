"""A client that costs next to nothing, so that the agent is measured.

Requests are bytes made beforehand, replies land in one buffer that is never parsed while the
clock runs. A reply is one line, and a connection has one request at a time under way, unless
`pipeline` says otherwise; hence a reply is complete when the last byte read is a newline.
"""

from __future__ import annotations

import json
import socket
import struct
from time import perf_counter_ns
from types import TracebackType
from typing import Any

PATIENCE = 120
"""Seconds without a byte after which an agent has failed to answer."""

_ROOM = 72 * 1024 * 1024  # for the reply to the largest guest-file-read, 48 MiB in base64
_NEWLINE = ord("\n")

_buffer = bytearray(_ROOM)
_view = memoryview(_buffer)


class SilenceError(Exception):
    """The agent disconnected, or did not answer within PATIENCE."""


class Refused(Exception):
    """The agent answered with an error."""


def request(command: str, /, **arguments: Any) -> bytes:
    """One request as bytes; `_` in an argument's name stands for `-`."""
    value: dict[str, Any] = {"execute": command}
    if arguments:
        value["arguments"] = {name.replace("_", "-"): arguments[name] for name in arguments}
    return json.dumps(value).encode() + b"\n"


class Client:
    """A connected stream socket to an agent."""

    def __init__(self, connection: socket.socket) -> None:
        # A blocking socket with the kernel's own timeout: Python's would poll before each call.
        connection.settimeout(None)
        patience = struct.pack("ll", PATIENCE, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self._socket = connection

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, command: str, /, **arguments: Any) -> Any:
        """Run a command and return its result. Raises Refused when it fails."""
        reply = json.loads(self.exchange(request(command, **arguments)))
        if "error" in reply:
            raise Refused(f"{command}: {reply['error']['desc']}")
        return reply["return"]

    def exchange(self, data: bytes) -> bytes:
        """Send a request and return the line that answers it."""
        return bytes(_view[: self.exchange_unseen(data)])

    def exchange_unseen(self, data: bytes) -> int:
        """Send a request and wait for the end of its reply, whose length is returned."""
        self._socket.sendall(data)
        return self._receive_line()

    def time_exchanges(self, data: bytes, count: int) -> list[int]:
        """The nanoseconds of each of `count` round trips with a short request."""
        times = []
        send, receive, clock = self._socket.send, self._receive_line, perf_counter_ns
        for _ in range(count):
            begin = clock()
            send(data)
            receive()
            times.append(clock() - begin)
        return times

    def send_in_pieces(self, data: bytes, size: int) -> None:
        """Send `size` bytes per call."""
        rest = memoryview(data)
        while rest:
            self._socket.sendall(rest[:size])
            rest = rest[size:]

    def pipeline(self, data: bytes, lines: int) -> bytes:
        """Send several requests at once and return this many lines of replies."""
        self._socket.sendall(data)
        replies = b""
        while replies.count(b"\n") < lines:
            replies += _view[: self._receive(_view)]
        return replies

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """The next reply."""
        return bytes(_view[: self._receive_line()])

    def _receive_line(self) -> int:
        size = self._receive(_view)
        while _buffer[size - 1] != _NEWLINE:
            size += self._receive(_view[size:])
        return size

    def _receive(self, room: memoryview) -> int:
        try:
            size = self._socket.recv_into(room)
        except BlockingIOError:
            raise SilenceError(f"the agent has not answered for {PATIENCE} s") from None
        if not size:
            raise SilenceError("the agent has hung up")
        return size
