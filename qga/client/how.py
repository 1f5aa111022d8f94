"""As whom, where and for how long a program of the guest is to run."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional


class How(NamedTuple):
    """How a program runs; the defaults leave it to the agent.

    user, group: by name or number. `cwd`: a directory of the guest. `timeout`: in seconds.
    """

    user: Optional[str] = None
    group: Optional[str] = None
    cwd: Optional[str] = None
    timeout: float = math.inf

    def on_the_wire(self) -> dict[str, Any]:
        """The arguments of qga-exec for it."""
        timeout = None if self.timeout == math.inf else self.timeout
        wanted = {
            "user": self.user,
            "group": self.group,
            "directory": self.cwd,
            "timeout": timeout,
        }
        return {name: value for name, value in wanted.items() if value is not None}


ANYHOW = How()
