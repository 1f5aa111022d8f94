"""QMP, the protocol to query and control a machine of QEMU.

QEMU serves one client of its QMP socket at a time and lets others wait: no greeting means that
another program is connected. This client is our own because the library needs nothing but Python,
and Debian has no package of qemu.qmp.

What must stay true: QEMU may be under the influence of its guest, so whatever it sends is bounded.
A reply belongs to the command that was sent, also after an exception in the middle of one.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from qga.client.conversion import converted, member
from qga.client.errors import AgentError, ConnectError, ProtocolError, shortened
from qga.client.sockets import UNIX_ADVICE, connect_unix
from qga.client.texts import reason_of

# Bytes until a reply is complete: that to query-block for dozens of disks with their backing
# files, and events.
MOST = 4 * 1024 * 1024
CHUNK = 64 * 1024

# Seconds. A transaction waits for requests of the guest that are under way on slow disks.
PATIENCE = 60.0

ADVICE = {
    **UNIX_ADVICE,
    errno.ENOENT: "is the machine running, and was QEMU started with -qmp unix:PATH,server=on?",
    errno.ECONNREFUSED: "nobody listens there: has QEMU exited?",
}

BUSY = "QEMU did not respond: it serves one QMP client at a time, is another one connected?"
GONE = "QEMU closed the QMP connection: has QEMU exited?"


class QmpRefused(AgentError):
    """QEMU refused a command, or it failed: `class_` and the text of QMP."""

    def __init__(self, address: str, command: str, error: object) -> None:
        super().__init__(shortened(member(str, "desc", error)), address=address, command=command)
        self.class_ = shortened(member(str, "class", error))


class Qmp:
    """A connection that is ready for commands; a context manager that closes it.

    check: called with the connection, before anything is sent. end: the time.monotonic() after
    which no command is waited for any more.
    Raises ConnectError if nobody listens, or nobody greets within `seconds`.
    """

    def __init__(
        self,
        path: str,
        seconds: float,
        check: Callable[[socket.socket], None] = lambda _connection: None,
    ) -> None:
        self.address = f"unix:{path}"
        self.end = math.inf
        self._numbers = itertools.count(1)
        self._unread = bytearray()
        self._socket = connect_unix(self.address, path, ADVICE)
        try:
            check(self._socket)
            deadline = time.monotonic() + seconds
            self._greeted(deadline)
            self.execute("qmp_capabilities", seconds=deadline - time.monotonic())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        seconds: float = PATIENCE,
        descriptors: Sequence[int] = (),
    ) -> object:
        """Run a command, and return its result.

        `descriptors` go with it. Raises QmpRefused, ConnectError or ProtocolError.
        """
        number = next(self._numbers)
        request = {"execute": command, "arguments": arguments or {}, "id": number}
        deadline = min(time.monotonic() + seconds, self.end)
        self._send(json.dumps(request).encode() + b"\n", descriptors, deadline)
        count = 0
        while True:
            line = self._line(deadline)
            count += len(line)
            message = self._parsed(line)
            if message.get("id") == number:
                break
            if count > MOST:
                raise ProtocolError("too many events", address=self.address, command=command)
        if "error" in message:
            raise QmpRefused(self.address, command, message["error"])
        return message.get("return")

    def _greeted(self, deadline: float) -> None:
        if "QMP" not in self._parsed(self._line(deadline)):
            raise ProtocolError("this is not a QMP socket", address=self.address)

    def _send(self, request: bytes, descriptors: Sequence[int], deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            # A machine that has gone is an error here, and no SIGPIPE.
            quietly, sent = socket.MSG_NOSIGNAL, 0
            if descriptors:
                sent = socket.send_fds(self._socket, [request], descriptors, quietly)
            self._socket.sendall(request[sent:], quietly)
        except socket.timeout:
            raise ConnectError(self.address, BUSY) from None
        except OSError as error:
            raise ConnectError(self.address, why_lost(error)) from None

    def _line(self, deadline: float) -> bytes:
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if searched > MOST:
                raise ProtocolError("a message is too long", address=self.address)
            self._unread += self._received(deadline)
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line

    def _received(self, deadline: float) -> bytes:
        rest = deadline - time.monotonic()
        try:
            # Also if there is always a byte to read.
            if rest <= 0:
                raise socket.timeout
            self._socket.settimeout(rest)
            data = self._socket.recv(CHUNK)
        except socket.timeout:
            raise ConnectError(self.address, BUSY) from None
        except OSError as error:
            raise ConnectError(self.address, why_lost(error)) from None
        if not data:
            raise ConnectError(self.address, GONE)
        return data

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            return converted(dict, json.loads(line))
        except (ValueError, RecursionError):
            raise ProtocolError("this is not a QMP socket", address=self.address) from None


def why_lost(error: OSError) -> str:
    return GONE if isinstance(error, ConnectionError) else reason_of(error)


def run_state(
    path: str, seconds: float, check: Callable[[socket.socket], None] = lambda _connection: None
) -> str:
    """`running`, `paused` or another RunState of QMP; "" if QEMU does not report one in time."""
    try:
        with Qmp(path, seconds, check) as qmp:
            return member(str, "status", qmp.execute("query-status", seconds=seconds))
    except AgentError:
        return ""
