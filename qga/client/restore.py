"""What was done to a guest that was restored, resumed or cloned."""

from __future__ import annotations

from typing import NamedTuple, Optional

FAILED = "failed"


class RestoreStep(NamedTuple):
    """result: "done", "failed" or "not-applicable". text: what was done, or why it was not."""

    name: str
    result: str
    text: str


class Resynced(NamedTuple):
    """The steps "clock", "random" and "dhcp".

    ahead_before, ahead_after: by how many seconds the guest's clock was ahead of this host's; None
    if the agent may not tell the time.
    """

    steps: tuple[RestoreStep, ...]
    ahead_before: Optional[float] = None
    ahead_after: Optional[float] = None

    @property
    def failed(self) -> tuple[RestoreStep, ...]:
        """The steps that failed."""
        return failed_of(self.steps)


class NewIdentity(NamedTuple):
    """The steps "random", "hostname", "machine-id" and "ssh-host-keys", as far as asked for.

    remaining: what goes on with the old identity, such as ssh connections and mounts.
    """

    steps: tuple[RestoreStep, ...]
    remaining: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[RestoreStep, ...]:
        """The steps that failed."""
        return failed_of(self.steps)


def failed_of(steps: tuple[RestoreStep, ...]) -> tuple[RestoreStep, ...]:
    return tuple(step for step in steps if step.result == FAILED)
