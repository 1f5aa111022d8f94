"""A child process whose pipes and exit are events of the loop: no thread, no polling.

A background process that keeps an output pipe open does not delay the exit status: the child counts
as exited GRACE seconds after it has exited itself. Later output is read and discarded, so that the
process does not get SIGPIPE. Because more output may follow, the captured output then counts as
truncated.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable

from qga.programs.exits import open_exit
from qga.programs.spawn import PLAIN, Launch, spawn

if TYPE_CHECKING:
    from qga.loop import Loop
    from qga.programs.job import Job

MAX_CAPTURE = 16 * 1024 * 1024
"""Bytes captured of each stream (the limit of QEMU's agent); the rest is discarded."""

GRACE = 1.0
"""Seconds that open pipes delay the exit status after the child has exited."""

LAST_WORDS = 2.0
"""Seconds between SIGTERM and SIGKILL."""

UNKNOWN_STATUS = 255

_READ_SIZE = 64 * 1024
_NOTHING: Mapping[str, tuple[int, ...]] = {}

Claim = Callable[[int], int]
"""Takes a number of bytes of output to keep; returns how many may be kept."""


class Capture:
    """The output of a pipe: its first MAX_CAPTURE bytes, and whether there may be more."""

    def __init__(self, fd: int, claim: Claim, admit: Claim | None = None) -> None:
        self.data = bytearray()
        self.truncated = False
        self.open = True
        self._fd = fd
        self._claim = claim
        self._admit = admit
        self._keep = True

    def watch(self, loop: Loop, on_close: Callable[[], None]) -> None:
        self._loop = loop
        self._on_close = on_close
        os.set_blocking(self._fd, False)
        loop.watch(self._fd, self._on_readable)

    def read_at_hand(self) -> None:
        """Read everything that is in the pipe now."""
        while self.open and self._read():
            pass

    def drop_the_rest(self) -> None:
        """Discard all further output."""
        self._keep = False
        self.truncated = self.truncated or self.open

    def take(self) -> bytearray:
        """Return the captured output and forget it."""
        data, self.data = self.data, bytearray()
        return data

    def _on_readable(self, _events: int) -> None:
        self._read()
        if not self.open:
            self._on_close()

    def _read(self) -> bool:
        """Read once; returns whether there was data."""
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self.open = False
            self._loop.unwatch(self._fd)
            os.close(self._fd)
        elif self._keep:
            wanted = len(data) if self._admit is None else self._admit(len(data))
            room = self._claim(min(wanted, MAX_CAPTURE - len(self.data)))
            self.data += data[:room]
            self.truncated = self.truncated or len(data) > room
        return bool(data)


class Feed:
    """Writes `data` to a pipe and closes it; then calls `on_end`, when the data is released."""

    def __init__(self, fd: int, data: bytes | bytearray, on_end: Callable[[], None]) -> None:
        self._fd = fd
        self._rest = memoryview(data)
        self._on_end = on_end

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        os.set_blocking(self._fd, False)
        loop.watch(self._fd, self._on_writable, select.EPOLLOUT)

    def _on_writable(self, _events: int) -> None:
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the child does not read its input
            pass
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._rest = memoryview(b"")
        self._on_end()


class Child:
    """A program, started by the constructor (which may block) and followed with `watch`.

    argv: the name or path of the program, and its arguments.
    environment: `NAME=value` strings; None for the agent's environment.
    stdin: its standard input; None for /dev/null.
    streams: the captures and the descriptors that go to them, such as {"out": (1,), "err": (2,)},
        or {"out": (1, 2)} to merge both.
    launch: the result of `caller.policy.program`.
    claim: called on the loop before output is kept.
    on_fed: called on the loop when `stdin` is written and released.
    on_closed: called on the loop when all pipes are closed. A background process of the child may
        delay that.

    pid: its process ID.
    status: None until it counts as exited; then its exit code, or minus the signal number.
    captures: a Capture for each name in `streams`.

    Raises OSError if it cannot be started.
    """

    def __init__(
        self,
        argv: list[str],
        environment: list[str] | None = None,
        stdin: bytes | bytearray | None = None,
        streams: Mapping[str, tuple[int, ...]] = _NOTHING,
        *,
        launch: Launch = PLAIN,
        claim: Claim = lambda wanted: wanted,
        on_fed: Callable[[], None] = lambda: None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.status: int | None = None
        self._code: int | None = None
        self._over = False
        self._on_fed = on_fed
        self._on_closed: Callable[[], None] | None = on_closed
        self.captures: dict[str, Capture] = {}
        self._feed: Feed | None = None
        self._job = job = job_of(launch)
        theirs: dict[int, int] = {}
        pipes: list[int] = []
        try:
            if stdin is not None:
                theirs[0], ours = _pipe(pipes)
                self._feed = Feed(ours, stdin, self._on_feed_end)
            for name, descriptors in streams.items():
                ours, end = _pipe(pipes)
                theirs.update(dict.fromkeys(descriptors, end))
                self.captures[name] = Capture(ours, claim, job.admit if job else None)
            self.pid = spawn(argv, environment, theirs, launch, job)
            self._exit = open_exit(self.pid)
        except BaseException:
            if job is not None:
                job.discard()
            for fd in pipes:
                os.close(fd)
            raise
        for fd in set(theirs.values()):
            os.close(fd)

    @property
    def size(self) -> int:
        """The number of bytes captured."""
        return sum(len(capture.data) for capture in self.captures.values())

    def watch(self, loop: Loop, on_end: Callable[[Child], None]) -> None:
        """Follow the child on the loop; `on_end` is called when it counts as exited."""
        self._loop = loop
        self._on_end = on_end
        if self._feed is not None:
            self._feed.watch(loop)
        for capture in self.captures.values():
            capture.watch(loop, self._end_if_all_closed)
        loop.watch(self._exit, self._on_exit)
        if self._job is not None:
            self._job.watch(loop, self.pid)

    def _on_exit(self, _events: int) -> None:
        self._loop.unwatch(self._exit)
        os.close(self._exit)
        self._code = exit_status(self.pid) if self._job is None else self._job.on_exit()
        for capture in self.captures.values():
            capture.read_at_hand()
        self._end_if_all_closed()
        if not self._over:
            self._loop.call_later(GRACE, self._end)

    def _on_feed_end(self) -> None:
        self._feed = None
        self._on_fed()
        self._end_if_all_closed()

    def _end_if_all_closed(self) -> None:
        if self._code is None or any(capture.open for capture in self.captures.values()):
            return
        self._end()
        if self._feed is None and self._on_closed is not None:
            on_closed, self._on_closed = self._on_closed, None
            on_closed()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        for capture in self.captures.values():
            capture.drop_the_rest()
        if self._job is None:
            self._tell_end()
        else:
            self._job.finish(self._tell_end)

    def _tell_end(self) -> None:
        self.status = self._code
        self._on_end(self)


def job_of(launch: Launch) -> Job | None:
    """The job that enforces the timeout and limits of a launch; None if it has neither."""
    if not launch.bounded:
        return None
    from qga.programs.job import Job

    return Job(launch)


def exit_status(pid: int) -> int:
    """The exit code of a child that has exited, or minus the signal number."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # other code in this process has reaped it
        return UNKNOWN_STATUS


def _pipe(opened: list[int]) -> tuple[int, int]:
    """The read end and the write end of a new pipe, also appended to `opened`."""
    ends = os.pipe()
    opened.extend(ends)
    return ends
