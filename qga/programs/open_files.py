"""The limit on open files: that of the agent, and that of the programs it starts.

What must stay true: programs get the limit that the agent was started with, because more than 1024
descriptors break programs that use select(2).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

ENOUGH = 65536
"""The highest limit that the agent sets for itself."""

_USUAL = 1024  # descriptors that a process may have, where nobody has changed it

inherited: Optional[tuple[int, int]] = None
"""The limits before they were raised, if they were."""


def raise_limit() -> int:
    """Raise the limit on open files as far as the system allows, and return it."""
    import resource

    global inherited  # noqa: PLW0603 - the limit is global to the process, too
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:  # a filter of system calls
        return _USUAL
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if 0 <= soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except OSError:
            return soft
        inherited = soft, hard
        return wanted
    return ENOUGH if soft == resource.RLIM_INFINITY else soft
