"""What a child does between fork and exec, where neither the kernel nor subprocess does it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EIO
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from qga.programs.accounts import Identity


class NotPrepared(OSError):
    """A step before exec has failed, so trying another file of the program is useless."""


class Steps:
    """What a child does between fork and exec.

    System calls and nothing else: it is the copy of a process whose other threads may hold locks.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[[], object], bytes]] = []
        self._report: tuple[int, int] = (-1, -1)

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        if self._steps:
            for fd in self._report:
                os.close(fd)

    def __bool__(self) -> bool:
        return bool(self._steps)

    def add(self, step: Callable[[], object], about: bytes = b"") -> None:
        """about: the file to name in an error."""
        if not self._steps:
            self._report = os.pipe()  # Popen does not report which error it was
        self._steps.append((step, about))

    def enter(self, entrance: int) -> None:
        """Become a member of a cgroup. Do this before changing the user, who may not."""
        from functools import partial

        self.add(partial(os.write, entrance, b"0"))

    def limit(self, resource_limits: Sequence[tuple[int, tuple[int, int]]]) -> None:
        from functools import partial
        from resource import setrlimit

        for number, values in resource_limits:
            self.add(partial(setrlimit, number, values))

    def add_terminal(self) -> None:
        from fcntl import ioctl
        from functools import partial
        from termios import TIOCSCTTY

        self.add(partial(ioctl, 0, TIOCSCTTY, 0))

    def become(self, identity: Identity, directory: bytes | None) -> None:
        from functools import partial

        uid, gid, groups = identity
        self.add(partial(os.setgroups, groups))
        self.add(partial(os.setresgid, gid, gid, gid))
        self.add(partial(os.setresuid, uid, uid, uid))
        if directory is not None:
            self.add(partial(os.chdir, directory), directory)

    def carry_out(self) -> None:
        """Run the steps, in the child."""
        for number, (step, _) in enumerate(self._steps):
            try:
                step()
            except OSError as error:
                os.write(self._report[1], b"%d %d" % (number, error.errno or EIO))
                raise

    def failure(self) -> NotPrepared:
        """The error that stopped the child, for the agent."""
        os.set_blocking(self._report[0], False)
        try:
            number, code = map(int, os.read(self._report[0], 64).split())
        except (BlockingIOError, ValueError):  # no system call has failed
            number, code = 0, EIO
        return NotPrepared(code, os.strerror(code), self._steps[number][1] or None)
