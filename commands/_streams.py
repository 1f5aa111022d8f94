"""A program whose input and output the host has while it runs.

What must stay true:

- Nothing of the output is lost, and little is kept: where the host does not take it, reading stops
  and the program waits.
- All of it are events of the loop: no thread, no polling.
- Whatever happens, the port and the pipes are given back. A host that leaves its port takes the
  program with it, as a terminal does whose line is cut.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from qga.child import GRACE, exit_status, open_pidfd
from qga.loop import EDGES
from qga.spawn import Launch, spawn

if TYPE_CHECKING:
    from qga.loop import Loop, Timer
    from qga.ports import PortFile

MAX_KEPT = 256 * 1024
"""Bytes of each stream that wait for the host, or for the program."""

LAST_WORDS = 2.0
"""Seconds that a program has to end once the host has left, before it is killed."""

_READ_SIZE = 64 * 1024
_PORT_READ_SIZE = 4096  # all that a port gives at once
_PORT_WRITE_SIZE = 32 * 1024  # all that it takes
_TURN = 4  # times _READ_SIZE from a port before others have their turn


class Size(NamedTuple):
    """Of a terminal."""

    rows: int
    columns: int


class Output:
    """What comes out of a program, from `offset` on; reading stops while MAX_KEPT bytes wait.

    closed: nothing more will come.
    """

    def __init__(self, fd: int) -> None:
        self.data = bytearray()
        self.offset = 0
        self.closed = False
        self._fd = fd
        self._keep = True
        self._paused = False

    @property
    def total(self) -> int:
        """Bytes that have come so far."""
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
        """Forget that many bytes from the front."""
        del self.data[:count]
        self.offset += count
        if self._paused and not self.full:
            self._paused = False
            self._loop.watch(self._fd, self._on_readable)

    def read_at_hand(self) -> None:
        """Read what has come already, as far as there is room."""
        while not self.closed and not self._paused and self._read():
            pass

    def drop_the_rest(self) -> None:
        """Keep nothing of what is still to come; nor what waits, if it is in the way of that."""
        self._keep = False
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
        """Read once; whether there was anything."""
        try:
            data = os.read(self._fd, min(_READ_SIZE, MAX_KEPT - len(self.data)))
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal open any longer
            data = b""
        if not data:
            self.close()
        elif self._keep:
            self.data += data
            if self.full:
                self._paused = True
                self._loop.unwatch(self._fd)
        return bool(data)


class Input:
    """What goes into a program; at most MAX_KEPT bytes wait until it takes them.

    end: what tells it that nothing more will come; None for closing the descriptor.

    finished: nothing more will come. closed: the program reads nothing any longer.
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

    def put(self, data: bytes) -> int:
        """Take what there is room for; the number of bytes. A program that reads nothing any
        longer is given nothing, and all is taken."""
        if self.closed or self.finished:
            return len(data)
        count = min(len(data), self.room)
        self._data += data[:count]
        if not self._waits:
            self._write()
        return count

    def finish(self) -> None:
        """Tell the program, after what waits, that nothing more will come."""
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
        except OSError:  # nobody reads it any longer
            self.close()
            return
        self._wait(False)
        if self.finished and self._end is None:
            self.close()

    def _wait(self, wait: bool) -> None:
        """Have the loop tell when there is room to write, or not."""
        if wait and not self._waits:
            self._loop.watch(self._fd, self._on_writable, select.EPOLLOUT)
        elif self._waits and not wait:
            self._loop.unwatch(self._fd)
        self._waits = wait


class Relay:
    """Passes on, raw, what comes from a port, and to it what a program writes."""

    def __init__(self, port: PortFile, output: Output, input: Input) -> None:
        self._port = port
        self._output = output
        self._input = input
        self._readable = True
        self._received = 0
        self._until: int | None = None

    def watch(self, loop: Loop, on_gone: Callable[[], None], on_sent: Callable[[], None]) -> None:
        """on_gone: called when the host has left. on_sent: when some output has been written."""
        self._loop = loop
        self._on_gone = on_gone
        self._on_sent = on_sent
        loop.watch(self._port.fileno(), self._on_events, EDGES)

    def end_input_after(self, count: int) -> None:
        """End the program's input after that many bytes of the port."""
        self._until = count
        self.receive()

    def close(self) -> None:
        if not self._port.closed:
            self._loop.unwatch(self._port.fileno())
            self._port.close()

    def send(self) -> None:
        """Write what the program has written, as far as the port takes it."""
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
        """Pass on what has come, as far as the program takes it."""
        for _ in range(_TURN):
            if self._until is not None and self._received >= self._until:
                self._input.finish()
            if not self._readable or self._port.closed or not self._input.room:
                return
            self._pass_on(self._read(min(_READ_SIZE, self._input.room)))
        self._loop.post(self.receive)

    def _on_events(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self._on_gone()
            return
        self._readable = True
        self.send()
        self.receive()

    def _read(self, most: int) -> bytes:
        """What has come, up to so many bytes; the port gives it in small pieces."""
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


class Program:
    """A program, started by the constructor, which may block; to be followed with `watch`.

    argv, environment, launch: as of qga.spawn.
    tty: the size of its terminal; None for pipes.
    port: where its output goes and its input comes from; given back when it ends.

    pid: its process id, its session's and its process group's.
    code: None until it has ended; then its exit code, or minus the number of the signal.
    ended: it has, and nothing more will come out of it.
    out, err: what it has written; with a terminal all is in `out`, with a port that is sent.

    Raises OSError when it cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: list[str] | None,
        launch: Launch,
        tty: Size | None,
        port: PortFile | None,
    ) -> None:
        self.code: int | None = None
        self.ended = False
        self._abandoned = False
        self._timer: Timer | None = None
        self._terminal: int | None = None
        self.err: Output | None = None
        ours: list[int] = []
        theirs: dict[int, int] = {}
        try:
            if tty is None:
                self._make_pipes(ours, theirs)
            else:
                self._make_terminal(tty, launch, ours, theirs)
                launch = launch._replace(terminal=True)
            self.pid = spawn(list(argv), environment, theirs, launch)
            self._pidfd = open_pidfd(self.pid)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in set(theirs.values()):
                os.close(fd)
        self._relay = None if port is None else Relay(port, self.out, self.input)

    @property
    def has_port(self) -> bool:
        return self._relay is not None

    def watch(self, loop: Loop, on_end: Callable[[], None]) -> None:
        """Follow the program on the loop; `on_end` is called when it is over."""
        self._loop = loop
        self._on_end = on_end
        relay = self._relay
        self.input.watch(loop, relay.receive if relay else lambda: None)
        for output in self._outputs:
            output.watch(loop, self._on_output)
        loop.watch(self._pidfd, self._on_exit)
        if relay is not None:
            relay.watch(loop, self._abandon, self._end_if_all_out)

    def end_input(self, after: int) -> None:
        """End its input, with a port after that many bytes of it."""
        if self._relay is None:
            self.input.finish()
        else:
            self._relay.end_input_after(after)

    def signal(self, number: int) -> None:
        """Signal its process group. Raises ProcessLookupError when it has ended."""
        if self.code is not None:
            raise ProcessLookupError
        os.killpg(self.pid, number)

    def acknowledge(self, out: int, err: int) -> None:
        """Give up so many bytes from the front of what it has written."""
        self.out.give_up(out)
        if self.err is not None:
            self.err.give_up(err)
        self._end_if_all_out()

    def resize(self, size: Size) -> bool:
        """Change the size of its terminal; False where it has none."""
        if self._terminal is None:
            return False
        if not self.out.closed:
            _set_size(self._terminal, size)
        return True

    def close(self) -> None:
        """Give everything back, and keep nothing of what the program still writes."""
        self.input.close()
        if self._relay is not None:
            self._relay.close()
        for output in self._outputs:
            output.drop_the_rest()
        if self._terminal is not None:
            self.out.close()

    @property
    def _outputs(self) -> tuple[Output, ...]:
        return (self.out,) if self.err is None else (self.out, self.err)

    def _make_pipes(self, ours: list[int], theirs: dict[int, int]) -> None:
        theirs[0], stdin = os.pipe()
        ours.append(stdin)
        for number in (1, 2):
            end, theirs[number] = os.pipe()
            ours.append(end)
        self.input = Input(stdin)
        self.out, self.err = Output(ours[1]), Output(ours[2])

    def _make_terminal(
        self, size: Size, launch: Launch, ours: list[int], theirs: dict[int, int]
    ) -> None:
        terminal, slave = os.openpty()
        ours.append(terminal)
        theirs.update(dict.fromkeys((0, 1, 2), slave))
        if launch.account is not None:
            os.fchown(slave, launch.account.pw_uid, -1)
        _set_size(terminal, size)
        ours.append(os.dup(terminal))
        self._terminal = terminal
        self.input = Input(ours[1], _end_of_file(terminal))
        self.out = Output(terminal)

    def _on_output(self) -> None:
        if self._relay is not None:
            self._relay.send()
        self._end_if_all_out()

    def _on_exit(self, _events: int) -> None:
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        if self._abandoned:  # what it has left behind has its process group still
            self._kill(signal.SIGKILL)
        self.code = exit_status(self.pid)
        self.input.close()
        for output in self._outputs:
            output.read_at_hand()
        self._on_output()

    def _end_if_all_out(self) -> None:
        """Something that still has a pipe open is waited for no longer than GRACE, but the host
        as long as it takes."""
        if self.code is None or self.ended or self._host_is_awaited:
            return
        if all(output.closed for output in self._outputs):
            self._end()
        elif self._timer is None:
            self._timer = self._loop.call_later(GRACE, self._on_grace_over)

    @property
    def _host_is_awaited(self) -> bool:
        relayed = self.has_port and not self._abandoned and bool(self.out.data)
        return relayed or any(output.full for output in self._outputs)

    def _on_grace_over(self) -> None:
        self._timer = None
        if not self.ended and not self._host_is_awaited:
            self._end()

    def _end(self) -> None:
        self.ended = True
        self.close()
        self._on_end()

    def _abandon(self) -> None:
        """The host has left the port: end the program."""
        if self._abandoned or self.ended:
            return
        self._abandoned = True
        self.close()
        if self.code is None:
            self._kill(signal.SIGHUP)
            self._kill(signal.SIGCONT)
            self._loop.call_later(LAST_WORDS, lambda: self._kill(signal.SIGKILL))
        self._end_if_all_out()

    def _kill(self, number: int) -> None:
        try:
            self.signal(number)
        except OSError:  # it has ended, or become another user's
            pass


def _set_size(terminal: int, size: Size) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def _end_of_file(terminal: int) -> bytes:
    """What is typed at a terminal to end the input."""
    import termios

    character: bytes = termios.tcgetattr(terminal)[6][termios.VEOF]
    return character
