"""The limit on open files: the agent's own, and the one that programs get.

What must stay true: programs get the limit that the agent was started with, for more than 1024
breaks those that use select(2).
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, Optional

ENOUGH = 65536
"""Where raising the limit stops."""

_MARGIN = 64  # more than are opened while a program is started

_inherited: Optional[tuple[int, int]] = None  # the limits before they were raised
_starting = allocate_lock()


def raise_limit() -> int:
    """Have as many descriptors as the system allows; how many that are."""
    import resource

    global _inherited  # noqa: PLW0603 - as the limit, it is the process's
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _inherited = soft, hard
        return wanted
    return ENOUGH if soft == resource.RLIM_INFINITY else soft


@contextmanager
def inherited_limit() -> Iterator[Optional[Callable[[], object]]]:
    """Within it programs are started with the limit that the agent was started with.

    Yields what the child has to do for that, which takes a copy of the agent's memory; or None, as
    nearly always: where few descriptors are in use the limit is the old one for that moment.
    """
    if _inherited is None:
        yield None
        return
    from functools import partial
    from resource import RLIMIT_NOFILE, getrlimit, setrlimit

    with _starting:
        if _lowest_free() >= _inherited[0] - _MARGIN:
            yield partial(setrlimit, RLIMIT_NOFILE, _inherited)
            return
        raised = getrlimit(RLIMIT_NOFILE)
        setrlimit(RLIMIT_NOFILE, _inherited)
        try:
            yield None
        finally:
            setrlimit(RLIMIT_NOFILE, raised)


def _lowest_free() -> int:
    fd = os.open("/", os.O_PATH)
    os.close(fd)
    return fd
