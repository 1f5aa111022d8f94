"""Transferring a file through a data port, with qga-file-send and qga-file-receive.

The agent replies when the last byte has been transferred, so a thread waits for the reply while
this one moves the bytes. To abort a transfer, the port is closed: the guest notices and its command
ends as well.
"""

from __future__ import annotations

import hashlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType

from qga.client.agent import GuestAgent
from qga.client.data_ports import DataPort
from qga.client.errors import AgentTimeout, CopyError
from qga.client.results import FileTransfer

# Seconds between two ticks while nothing moves, and seconds without progress until it is given up.
TICK = 0.1
PATIENCE = 60.0

# Seconds that the agent may take to notice that the port was closed.
GRACE = 10.0

# Bytes per second that any guest achieves; this decides how long to wait for the reply.
SLOWEST = 100 * 1024


def send_file(
    agent: GuestAgent,
    port: DataPort,
    path: str,
    offset: int,
    count: int,
    tick: Callable[[], None],
) -> Iterator[bytes]:
    """Read `count` bytes of a guest's file from `offset` on, or fewer if it was truncated."""
    digest, received = hashlib.sha256(), 0
    with Transfer(agent, agent.file_send, port, path, offset, count, tick) as transfer:
        while transfer.moved is None or received < transfer.moved.size:
            if not transfer.wait():
                continue
            data = port.receive()
            received += len(data)
            if received > count:
                raise CopyError(f"{path}: more bytes come through {port.name} than were asked for")
            digest.update(data)
            yield data
        transfer.check(received, digest.hexdigest())


def receive_file(
    agent: GuestAgent,
    port: DataPort,
    path: str,
    offset: int,
    count: int,
    chunks: Iterator[bytes],
    tick: Callable[[], None],
    keep: bool = True,
) -> None:
    """Write `count` bytes into a guest's file from `offset` on.

    Without `keep` the guest removes the file if the transfer fails, even if this host is gone.
    """
    digest, sent = hashlib.sha256(), 0
    receive = agent.file_receive if keep else partial(agent.file_receive, keep=False)
    with Transfer(agent, receive, port, path, offset, count, tick) as transfer:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                if transfer.wait(writing=True):
                    rest = rest[port.send(rest) :]
            digest.update(chunk)
            sent += len(chunk)
        if sent < count:
            raise CopyError(f"{path}: its source has become shorter while it was copied")
        while transfer.moved is None:
            transfer.wait()
        transfer.check(sent, digest.hexdigest())


class Transfer:
    """A running command of the agent that moves bytes through a port."""

    def __init__(
        self,
        agent: GuestAgent,
        command: Callable[..., FileTransfer],
        port: DataPort,
        path: str,
        offset: int,
        count: int,
        tick: Callable[[], None],
    ) -> None:
        self.agent = agent
        self.port = port
        self.path = path
        self.tick = tick
        self.moved: FileTransfer | None = None
        """The number of bytes and their checksum as the guest reports them in its reply."""
        self._error: BaseException | None = None
        self._last = time.monotonic()
        self._answered, self._answer = os.pipe()
        seconds = PATIENCE + count / SLOWEST
        self._ask = partial(command, path, port.name, offset, count, timeout=seconds)
        self._thread = threading.Thread(target=self._wait_for_answer, daemon=True)

    def __enter__(self) -> Transfer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.port.close()
        self._thread.join(GRACE)
        os.close(self._answered)

    def wait(self, *, writing: bool = False) -> bool:
        """Wait a moment for the port; returns whether it is readable, or writable if `writing`.

        Raises the command's error, and AgentTimeout after PATIENCE seconds without progress.
        """
        self.tick()
        port = self.port.fileno()
        reading = [] if writing else [port]
        if self.moved is None:
            reading.append(self._answered)
        readable, writable, _ = select.select(reading, [port] if writing else [], [], TICK)
        if self._answered in readable:
            self._take_answer()
        ready = port in (writable if writing else readable)
        self._watch(ready)
        return ready

    def check(self, count: int, sha256: str) -> None:
        """Raise ProtocolError unless the guest moved the same bytes."""
        if self.moved != (count, sha256):
            raise CopyError(f"{self.path}: other bytes came through {self.port.name}")

    def _take_answer(self) -> None:
        if self._error is not None:
            raise self._error

    def _watch(self, ready: bool) -> None:
        now = time.monotonic()
        if ready:
            self._last = now
        elif now - self._last > PATIENCE:
            reason = "no bytes have moved; is the guest paused?"
            raise AgentTimeout(self.agent.address, self.port.name, PATIENCE, reason)

    def _wait_for_answer(self) -> None:
        try:
            self.moved = self._ask()
        except BaseException as error:
            self._error = error
        finally:
            os.close(self._answer)
