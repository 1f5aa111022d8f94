"""The input and output of a program, with flow control.

Nothing is lost and little is buffered: while one side does not read, the other side is not read
either. Everything is an event of the loop.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Callable, Optional

from qga.loop import EDGES

if TYPE_CHECKING:
    from qga.loop import Loop
    from qga.ports import PortFile

MAX_KEPT = 256 * 1024
"""Bytes of each stream that are buffered for the host, or for the program."""

_READ_SIZE = 64 * 1024
_PORT_READ_SIZE = 4096  # the most that a port returns at once
_PORT_WRITE_SIZE = 32 * 1024  # the most that it takes at once
_TURN = 4  # times _READ_SIZE from a port before other connections get a turn


class Output:
    """The output of a program, from `offset` on. Reading stops while MAX_KEPT bytes are buffered.

    admit: called with a number of new bytes; returns how many to keep. None keeps all.
    closed: whether the end of the output was reached.
    truncated: whether there may have been output that was not kept.
    """

    def __init__(self, fd: int, admit: Callable[[int], int] | None = None) -> None:
        self.data = bytearray()
        self.offset = 0
        self.closed = False
        self.truncated = False
        self._fd = fd
        self._admit = admit
        self._keep = True
        self._paused = False

    @property
    def total(self) -> int:
        """The number of bytes read so far."""
        return self.offset + len(self.data)

    @property
    def full(self) -> bool:
        return len(self.data) >= MAX_KEPT

    def watch(self, loop: Loop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        os.set_blocking(self._fd, False)
        loop.watch(self._fd, self._on_readable)

    def give_up(self, count: int) -> None:
        """Drop that many bytes from the front."""
        del self.data[:count]
        self.offset += count
        if self._paused and not self.full:
            self._paused = False
            self._loop.watch(self._fd, self._on_readable)

    def read_at_hand(self) -> None:
        """Read everything that is in the pipe now, as far as there is room."""
        while not self.closed and not self._paused and self._read():
            pass

    def drop_the_rest(self) -> None:
        """Discard all further output, and buffered output if it would stop reading."""
        self._keep = False
        self.truncated = self.truncated or not self.closed
        if self._paused:
            self.data.clear()
            self.give_up(0)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if not self._paused:
            self._loop.unwatch(self._fd)
        self._paused = False
        os.close(self._fd)

    def _on_readable(self, _events: int) -> None:
        self._read()
        self._on_change()

    def _read(self) -> bool:
        """Read once; returns whether there was data."""
        try:
            data = os.read(self._fd, min(_READ_SIZE, MAX_KEPT - len(self.data)))
        except BlockingIOError:
            return False
        except OSError:  # EIO: no process has the terminal open any longer
            data = b""
        if not data:
            self.close()
        elif self._keep:
            kept = len(data) if self._admit is None else self._admit(len(data))
            self.data += data[:kept]
            self.truncated = self.truncated or kept < len(data)
            if self.full:
                self._paused = True
                self._loop.unwatch(self._fd)
        return bool(data)


class Input:
    """The input of a program. At most MAX_KEPT bytes are buffered until it reads them.

    end: the bytes that signal end-of-file; None to close the descriptor instead.

    finished: whether the input is complete. closed: whether the program has stopped reading.
    """

    def __init__(self, fd: int, end: Optional[bytes] = None) -> None:
        self.closed = False
        self.finished = False
        self._fd = fd
        self._end = end
        self._data = bytearray()
        self._waits = False

    @property
    def room(self) -> int:
        return MAX_KEPT - len(self._data)

    def watch(self, loop: Loop, on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._on_room = on_room
        os.set_blocking(self._fd, False)

    def put(self, data: bytes | bytearray) -> int:
        """Buffer as many bytes as there is room for, and return their number. If the program has
        stopped reading, all bytes are accepted and discarded."""
        if self.closed or self.finished:
            return len(data)
        count = min(len(data), self.room)
        self._data += data[:count]
        if not self._waits:
            self._write()
        return count

    def finish(self) -> None:
        """Signal end-of-file to the program after the buffered bytes."""
        if not self.finished:
            self.finished = True
            self._data += self._end or b""
            if not self._waits:
                self._write()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._data.clear()
            self._wait(False)
            os.close(self._fd)

    def _on_writable(self, _events: int) -> None:
        self._write()
        self._on_room()

    def _write(self) -> None:
        if self.closed:
            return
        try:
            while self._data:
                del self._data[: os.write(self._fd, self._data)]
        except BlockingIOError:
            self._wait(True)
            return
        except OSError:  # the program has stopped reading
            self.close()
            return
        self._wait(False)
        if self.finished and self._end is None:
            self.close()

    def _wait(self, wait: bool) -> None:
        """Start or stop watching for the descriptor to become writable."""
        if wait and not self._waits:
            self._loop.watch(self._fd, self._on_writable, select.EPOLLOUT)
        elif self._waits and not wait:
            self._loop.unwatch(self._fd)
        self._waits = wait


class Relay:
    """Relays raw bytes from a port to a program, and from the program to the port."""

    def __init__(self, port: PortFile, output: Output, input: Input) -> None:
        self._port = port
        self._output = output
        self._input = input
        self._readable = True
        self._received = 0
        self._until: int | None = None

    def watch(self, loop: Loop, on_gone: Callable[[], None], on_sent: Callable[[], None]) -> None:
        """on_gone: called when the host disconnects. on_sent: called when output was written."""
        self._loop = loop
        self._on_gone = on_gone
        self._on_sent = on_sent
        loop.watch(self._port.fileno(), self._on_events, EDGES)

    def end_input_after(self, count: int) -> None:
        """End the program's input after that many bytes from the port."""
        self._until = count
        self.receive()

    def close(self) -> None:
        if not self._port.closed:
            self._loop.unwatch(self._port.fileno())
            self._port.close()

    def send(self) -> None:
        """Write buffered output as far as the port accepts it."""
        output, sent = self._output, 0
        try:
            while output.data and not self._port.closed:
                sent = os.write(self._port.fileno(), output.data[:_PORT_WRITE_SIZE])
                output.give_up(sent)
        except BlockingIOError:
            pass
        except OSError:  # unplugged
            self._on_gone()
        if sent:
            self._on_sent()

    def receive(self) -> None:
        """Read from the port as far as there is room for input of the program."""
        for _ in range(_TURN):
            if self._until is not None and self._received >= self._until:
                self._input.finish()
            if not self._readable or self._port.closed or not self._input.room:
                return
            self._pass_on(self._read(min(_READ_SIZE, self._input.room)))
        self._loop.post(self.receive)

    def _on_events(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLERR):
            self._on_gone()
            return
        self._readable = True
        self.send()
        self.receive()

    def _read(self, most: int) -> bytes:
        """Read up to `most` bytes, in several pieces because the port returns small ones."""
        pieces: list[bytes] = []
        while most > 0:
            try:
                piece = os.read(self._port.fileno(), min(_PORT_READ_SIZE, most))
            except BlockingIOError:
                self._readable = False
                break
            except OSError:  # unplugged
                piece = b""
            if not piece:
                self._on_gone()
                break
            pieces.append(piece)
            most -= len(piece)
        return b"".join(pieces)

    def _pass_on(self, data: bytes) -> None:
        if self._until is None:
            self._input.put(data)
        else:
            self._input.put(data[: max(0, self._until - self._received)])
        self._received += len(data)
