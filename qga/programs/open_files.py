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
    """Raise the limit of open files as far as the system allows; returns the limit."""
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
    """A context in which programs start with the limit that the agent was started with.

    Nearly always the limit is just lowered for that moment, and None is yielded. That fails when
    more descriptors are in use; then the child itself has to call what is yielded, which makes
    its start slower (fork instead of vfork).
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
