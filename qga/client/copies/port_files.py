"""A file's bytes, raw, through a data port: qga-file-send and qga-file-receive.

The agent answers such a command when the last byte has passed, so it is asked from a thread
while the bytes move here. Whatever ends the transfer early hangs up the port: by that the guest
knows, and its command ends, too.
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

# Seconds between two ticks while nothing moves, and until nothing has moved for too long.
TICK = 0.1
PATIENCE = 60.0

# Seconds that the agent may take to see that the port was hung up.
GRACE = 10.0

# Bytes a second that any guest can do; the answer is waited for as long as that takes.
SLOWEST = 100 * 1024


def send_file(
    agent: GuestAgent,
    port: DataPort,
    path: str,
    offset: int,
    count: int,
    tick: Callable[[], None],
) -> Iterator[bytes]:
    """`count` bytes of a file of the guest from `offset` on, or fewer if it has become shorter."""
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
) -> None:
    """Write `count` bytes into a file of the guest from `offset` on."""
    digest, sent = hashlib.sha256(), 0
    with Transfer(agent, agent.file_receive, port, path, offset, count, tick) as transfer:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                if transfer.wait(writing=True):
                    rest = rest[port.send(rest) :]
            digest.update(chunk)
            sent += len(chunk)
        if sent < count:
            raise CopyError(f"{path}: what is copied there has become shorter meanwhile")
        while transfer.moved is None:
            transfer.wait()
        transfer.check(sent, digest.hexdigest())


class Transfer:
    """A command of the agent's that moves bytes through a port, while it runs."""

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
        """What the guest says that it has moved, once it does."""
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
        """Wait a moment for the port; whether it can be read, or written if `writing`.

        Raises the command's error, and AgentTimeout when nothing has moved for long.
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
        """The guest must have moved the very bytes that we have."""
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
            reason = "no bytes have moved"
            raise AgentTimeout(self.agent.address, self.port.name, PATIENCE, reason)

    def _wait_for_answer(self) -> None:
        try:
            self.moved = self._ask()
        except BaseException as error:
            self._error = error
        finally:
            os.close(self._answer)
