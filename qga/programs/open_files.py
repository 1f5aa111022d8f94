"""The limit on open files: that of the agent, and that of the programs it starts.

What must stay true: programs get the limit that the agent was started with, because more than 1024
descriptors break programs that use select(2).
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, Optional

ENOUGH = 65536
"""The highest limit that the agent sets for itself."""

_MARGIN = 64  # more than are opened while a program is started

_inherited: Optional[tuple[int, int]] = None  # the limits before they were raised
_starting = allocate_lock()


def raise_limit() -> int:
    """Raise the limit on open files as far as the system allows, and return it."""
    import resource

    global _inherited  # noqa: PLW0603 - the limit is global to the process, too
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _inherited = soft, hard
        return wanted
    return ENOUGH if soft == resource.RLIM_INFINITY else soft


@contextmanager
def inherited_limit() -> Iterator[Optional[Callable[[], object]]]:
    """A context in which programs are started with the limit that the agent was started with.

    Usually the limit is lowered meanwhile, and None is yielded. That is impossible if more
    descriptors are in use. Then a function is yielded that the child must call, which makes its
    start slower (fork instead of vfork).
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
