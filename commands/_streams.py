"""A program whose input and output are connected to the host while it runs.

What must stay true: the port and the pipes are always released. When the host disconnects from the
port, the program is ended, as if its terminal had hung up. There are no threads and no polling;
everything is an event of the loop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from qga.programs.child import GRACE, LAST_WORDS, exit_status, job_of
from qga.programs.exits import open_exit
from qga.programs.spawn import Launch, spawn
from qga.records import NamedTuple

from ._flows import Input, Output, Relay

if TYPE_CHECKING:
    from qga.loop import Loop, Timer
    from qga.ports import PortFile


class Size(NamedTuple):
    """The size of a terminal."""

    rows: int
    columns: int


class Program:
    """A program, started by the constructor (which may block) and followed with `watch`.

    argv, environment, launch: as for qga.programs.spawn.
    tty: the size of its terminal; None for pipes.
    port: connected to its input and output; released when it ends.

    pid: the ID of its process, process group and session.
    code: None until it has exited; then its exit code, or minus the signal number.
    ended: whether it has exited and its output is complete.
    ended_by: why the agent ended it, such as "timeout"; "" if it did not.
    out, err: its output. With a terminal, everything is in `out`. With a port, `out` is sent there.

    Raises OSError if it cannot be started.
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
        self._over = False
        self._abandoned = False
        self._job = job_of(launch)
        self._timer: Timer | None = None
        self._terminal: int | None = None
        self.err: Output | None = None
        ours: list[int] = []
        theirs: dict[int, int] = {}
        try:
            if tty is None:
                self._make_pipes(ours, theirs)
            else:
                self._make_terminal(tty, ours, theirs)
                launch = launch._replace(terminal=True)
            self.pid = spawn(list(argv), environment, theirs, launch, self._job)
            self._exit = open_exit(self.pid)
        except BaseException:
            for fd in ours:
                os.close(fd)
            if self._job is not None:
                self._job.discard()
            raise
        finally:
            for fd in set(theirs.values()):
                os.close(fd)
        self._relay = None if port is None else Relay(port, self.out, self.input)

    @property
    def ended_by(self) -> str:
        return self._job.ended_by if self._job else ""

    @property
    def kept(self) -> int:
        """Bytes of output that the host has not fetched yet."""
        return sum(len(output.data) for output in self._outputs)

    @property
    def confinement(self) -> str:
        """How its processes are confined; "" if it has neither a timeout nor limits."""
        return self._job.confinement if self._job else ""

    @property
    def has_port(self) -> bool:
        return self._relay is not None

    def watch(self, loop: Loop, on_end: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """Follow the program on the loop.

        on_end: called when it has ended. on_closed: called when everything is released, which a
            background process that it left behind may delay.
        """
        self._loop = loop
        self._on_end = on_end
        self._on_closed: Callable[[], None] | None = on_closed
        relay = self._relay
        self.input.watch(loop, relay.receive if relay else lambda: None)
        for output in self._outputs:
            output.watch(loop, self._on_output)
        loop.watch(self._exit, self._on_exit)
        if relay is not None:
            relay.watch(loop, self._abandon, self._end_if_all_out)
        if self._job is not None:
            self._job.watch(loop, self.pid)

    def end_input(self, after: int) -> None:
        """End its input. With a port, do so after that many bytes from the port."""
        if self._relay is None:
            self.input.finish()
        else:
            self._relay.end_input_after(after)

    def signal(self, number: int) -> None:
        """Signal its process group. Raises ProcessLookupError if it has ended."""
        if self.code is not None:
            raise ProcessLookupError
        os.killpg(self.pid, number)

    def acknowledge(self, out: int, err: int) -> None:
        """Drop that many bytes of output from the front."""
        self.out.give_up(out)
        if self.err is not None:
            self.err.give_up(err)
        self._end_if_all_out()

    def resize(self, size: Size) -> bool:
        """Change the size of its terminal; returns False if it has none."""
        if self._terminal is None:
            return False
        if not self.out.closed:
            _set_size(self._terminal, size)
        return True

    def close(self) -> None:
        """Release everything, and discard further output of the program."""
        self.input.close()
        if self._relay is not None:
            self._relay.close()
        for output in self._outputs:
            output.drop_the_rest()
        if self._terminal is not None:
            self.out.close()

    @property
    def _admit(self) -> Callable[[int], int] | None:
        return self._job.admit if self._job else None

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
        self.out, self.err = Output(ours[1], self._admit), Output(ours[2], self._admit)

    def _make_terminal(self, size: Size, ours: list[int], theirs: dict[int, int]) -> None:
        terminal, slave = os.openpty()
        ours.append(terminal)
        theirs.update(dict.fromkeys((0, 1, 2), slave))
        _set_size(terminal, size)
        ours.append(os.dup(terminal))
        self._terminal = terminal
        self.input = Input(ours[1], _end_of_file(terminal))
        self.out = Output(terminal, self._admit)

    def _on_output(self) -> None:
        if self._relay is not None:
            self._relay.send()
        self._end_if_all_out()

    def _on_exit(self, _events: int) -> None:
        self._loop.unwatch(self._exit)
        os.close(self._exit)
        if self._abandoned:  # its background processes are still in the process group
            self._kill(signal.SIGKILL)
        self.code = exit_status(self.pid) if self._job is None else self._job.on_exit()
        self.input.close()
        for output in self._outputs:
            output.read_at_hand()
        self._on_output()

    def _end_if_all_out(self) -> None:
        """Wait at most GRACE for processes that keep a pipe open, but for the host without a
        limit."""
        if self.ended:
            self._tell_if_closed()
        if self.code is None or self._over or self._host_is_awaited:
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
        if not self._over and not self._host_is_awaited:
            self._end()

    def _end(self) -> None:
        self._over = True
        self.close()
        if self._job is None:
            self._tell_end()
        else:
            self._job.finish(self._tell_end)

    def _tell_end(self) -> None:
        self.ended = True
        self._on_end()
        self._tell_if_closed()

    def _tell_if_closed(self) -> None:
        if self._on_closed is not None and all(output.closed for output in self._outputs):
            on_closed, self._on_closed = self._on_closed, None
            on_closed()

    def _abandon(self) -> None:
        """The host has disconnected from the port: end the program."""
        if self._abandoned or self._over:
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
    """The characters that end the input at a terminal."""
    import termios

    character: bytes = termios.tcgetattr(terminal)[6][termios.VEOF]
    return character
