"""The limit on open files of the programs that the agent starts.

What must stay true: it is the one that the agent was started with, because more than 1024
descriptors break programs that use select(2).
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Callable, Optional

from qga.programs import open_files

_MARGIN = 64  # more than are opened while a program is started

_starting = allocate_lock()


@contextmanager
def inherited_limit(
    opened: Collection[int] = (), by_child: bool = False
) -> Iterator[Optional[Callable[[], object]]]:
    """A context in which programs are started with the limit that the agent was started with.

    Usually the limit is lowered meanwhile, and None is yielded. That is impossible if more
    descriptors are in use. Then a function is yielded that the child must call, which makes its
    start slower (fork instead of vfork).

    opened: descriptors that were opened just now: they were the lowest free ones. The next ones may
        be far higher, so a start may fail with EMFILE.
    by_child: whether to leave the agent's limit alone, after such a failure.
    """
    inherited = open_files.inherited
    if inherited is None:
        yield None
        return
    from functools import partial
    from resource import RLIMIT_NOFILE, prlimit, setrlimit

    with _starting:
        if by_child or _next(opened) >= inherited[0] - _MARGIN:
            yield partial(setrlimit, RLIMIT_NOFILE, inherited)
            return
        raised = prlimit(0, RLIMIT_NOFILE, inherited)
        try:
            yield None
        finally:
            setrlimit(RLIMIT_NOFILE, raised)


def _next(opened: Collection[int]) -> int:
    """About the lowest descriptor that is free."""
    if opened:
        return max(opened)
    fd = os.open("/", os.O_PATH)
    os.close(fd)
    return fd
