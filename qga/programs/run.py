"""Running a program to completion, for handlers on the worker.

This is for programs that the agent itself needs (hooks, chpasswd, systemctl). They get a time limit
and a process group of their own, which is killed when the time is over.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping

from qga import task
from qga.programs.exits import open_exit
from qga.programs.spawn import own_environment, spawn
from qga.records import NamedTuple

_READ_SIZE = 64 * 1024


class Finished(NamedTuple):
    """The result of a program.

    status: its exit code, or minus the number of the signal that killed it.
    output: its standard output and standard error, merged.
    """

    status: int
    output: str


def run(
    argv: list[str],
    timeout: float,
    stdin: bytes = b"",
    max_output: int = 64 * 1024,
    *,
    only_looks: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program and wait for it to exit.

    argv: its path or name, and its arguments.
    timeout: seconds after which it is killed.
    max_output: bytes of output to keep; the rest is discarded.
    only_looks: whether it changes nothing and can be killed when no client waits for the result.
    variables: added to its environment.
    Raises OSError if it cannot be started, and TimeoutError if it was killed.
    """
    deadline = time.monotonic() + timeout
    program = _Program(stdin, max_output)
    try:
        program.start(argv, variables)
        return program.wait(deadline, only_looks)
    finally:
        program.close()


class _Program:
    """A running program, and the agent's ends of its pipes."""

    def __init__(self, stdin: bytes, max_output: int) -> None:
        self._rest = memoryview(stdin)
        self._max_output = max_output
        self._output = bytearray()
        self._ours: list[int] = []

    def start(self, argv: list[str], variables: Mapping[str, str] | None) -> None:
        theirs: dict[int, int] = {}
        self._input_fd = -1
        try:
            self._output_fd, theirs[1] = os.pipe()
            self._ours.append(self._output_fd)
            theirs[2] = theirs[1]
            if self._rest:
                theirs[0], self._input_fd = os.pipe()
                self._ours.append(self._input_fd)
            self._pid = spawn(argv, _environment(variables), theirs)
        finally:
            for fd in set(theirs.values()):
                os.close(fd)
        for fd in self._ours:
            os.set_blocking(fd, False)
        self._exit_fd = open_exit(self._pid)
        self._ours.append(self._exit_fd)

    def wait(self, deadline: float, only_looks: bool) -> Finished:
        poll = select.poll()
        for fd in self._ours:
            poll.register(fd, select.POLLOUT if fd == self._input_fd else select.POLLIN)
        while True:
            rest = max(0, deadline - time.monotonic())
            ready = dict(poll.poll((min(rest, task.INTERVAL) if only_looks else rest) * 1000))
            if self._input_fd in ready and not self._give():
                poll.unregister(self._input_fd)
                self._ours.remove(self._input_fd)
                os.close(self._input_fd)  # the program reads end-of-file
            if self._output_fd in ready and not self._take():
                poll.unregister(self._output_fd)
            if self._exit_fd in ready:
                break
            if time.monotonic() >= deadline:
                self._kill()
                raise TimeoutError
            if only_looks:
                try:
                    task.stop_if_given_up()
                except task.GivenUp:
                    self._kill()
                    raise
        while len(self._output) < self._max_output and self._take():
            pass
        _, status = os.waitpid(self._pid, 0)
        text = self._output.decode("utf-8", "replace")
        return Finished(os.waitstatus_to_exitcode(status), text)

    def close(self) -> None:
        for fd in self._ours:
            os.close(fd)

    def _kill(self) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _give(self) -> bool:
        """Write once; returns whether there is more to write, and a reader."""
        try:
            self._rest = self._rest[os.write(self._input_fd, self._rest) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._rest)

    def _take(self) -> bool:
        """Read once, keeping at most `max_output` bytes in all; returns whether there was data."""
        try:
            data = os.read(self._output_fd, _READ_SIZE)
        except BlockingIOError:
            return False
        self._output += data[: self._max_output - len(self._output)]
        return bool(data)


def _environment(variables: Mapping[str, str] | None) -> list[str] | None:
    if variables is None:
        return None
    own = {os.fsdecode(name): os.fsdecode(value) for name, value in own_environment().items()}
    return [f"{name}={value}" for name, value in {**own, **variables}.items()]
