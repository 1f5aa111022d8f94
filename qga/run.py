"""Running a program to its end, for handlers on the worker.

For programs that the agent itself needs (hooks, chpasswd, systemctl): they get a time limit,
and a process group of their own that is killed when it is over.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import NamedTuple

from qga import task
from qga.spawn import spawn

_READ_SIZE = 64 * 1024


class Finished(NamedTuple):
    """How a program ended.

    status: its exit code, or minus the number of the signal that ended it.
    output: what it wrote to standard output and standard error, as one.
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
) -> Finished:
    """Run a program and wait for its end.

    argv: its path or name, and its arguments.
    timeout: seconds after which it is killed.
    max_output: bytes kept of what it writes; the rest is read and dropped.
    only_looks: whether it changes nothing, so that it is killed when nobody waits any longer.
    Raises OSError when it cannot be started, TimeoutError when it was killed.
    """
    given = os.memfd_create("stdin")
    read_end, write_end = os.pipe()
    try:
        os.write(given, stdin)
        os.lseek(given, 0, os.SEEK_SET)
        pid = spawn(argv, None, {0: given, 1: write_end, 2: write_end})
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(given)
        os.close(write_end)
    return _wait(pid, read_end, time.monotonic() + timeout, max_output, only_looks)


def _wait(pid: int, output_fd: int, deadline: float, max_output: int, only_looks: bool) -> Finished:
    pidfd = os.pidfd_open(pid)
    os.set_blocking(output_fd, False)
    output = bytearray()
    poll = select.poll()
    for fd in (pidfd, output_fd):
        poll.register(fd, select.POLLIN)
    try:
        while True:
            rest = max(0, deadline - time.monotonic())
            ready = dict(poll.poll((min(rest, task.INTERVAL) if only_looks else rest) * 1000))
            if output_fd in ready and not _take(output_fd, output, max_output):
                poll.unregister(output_fd)
            if pidfd in ready:
                while len(output) < max_output and _take(output_fd, output, max_output):
                    pass
                break
            if time.monotonic() >= deadline:
                _kill(pid)
                raise TimeoutError
            if only_looks:
                try:
                    task.stop_if_given_up()
                except task.GivenUp:
                    _kill(pid)
                    raise
    finally:
        os.close(pidfd)
        os.close(output_fd)
    _, status = os.waitpid(pid, 0)
    return Finished(os.waitstatus_to_exitcode(status), output.decode("utf-8", "replace"))


def _kill(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _take(fd: int, output: bytearray, limit: int) -> bool:
    """Read once; whether there was anything. Keeps no more than `limit` bytes in all."""
    try:
        data = os.read(fd, _READ_SIZE)
    except BlockingIOError:
        return False
    output += data[: limit - len(output)]
    return bool(data)
