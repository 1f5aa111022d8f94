"""How many files the agent may have open, and which channel has how many of them.

What must stay true: however many files a channel opens and programs it starts, there are
descriptors left for new clients, for a thaw, for passwords, and for the other channels. So the
limit is raised as far as it goes, a part is kept back, and the rest is shared out equally. Programs
get the limit that the agent was started with: more than 1024 breaks those that use select(2).
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Optional

from qga.errors import QgaError
from qga.quota import Quota
from qga.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qga.config import ChannelConfig

ENOUGH = 65536
"""Where raising the limit stops."""

_KEPT_BACK = 128  # beside one for each client
_MARGIN = 64  # more than are opened while a program is started

_inherited: Optional[tuple[int, int]] = None  # the limits before they were raised
_starting = allocate_lock()


class Descriptors:
    """What each channel may have open for longer than a command, of `most` in all."""

    def __init__(self, most: int, channels: Sequence[ChannelConfig]) -> None:
        kept_back = _KEPT_BACK + sum(channel.max_clients for channel in channels)
        self.share = max(most - kept_back, most // 2) // len(channels)
        self._quota = Quota()

    def take(self, channel: str, count: int) -> None:
        """Count so many more. Raises QgaError when the channel has its share already."""
        if not self._quota.take(channel, count, self.share):
            raise QgaError(
                f"files and programs of this channel have {self._quota.taken(channel)} of its "
                f"{counted(self.share, 'descriptor')} already; close a file or wait for a program "
                "to end"
            )

    def give(self, channel: str, count: int) -> None:
        """Give back what was taken."""
        self._quota.give(channel, count)


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
