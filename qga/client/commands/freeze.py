"""Freezing the guest's filesystems, so that a consistent snapshot can be taken.

What must stay true: whoever has frozen thaws, whatever happens in between, unless the way to
the guest is gone for longer than RETRIES_END; and a freeze that did not hold to its thaw is
told, so that no inconsistent snapshot passes for a good one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType

from qga.client.connection import Connection
from qga.client.errors import AgentError, CommandError, FreezeEnded, ThawFailed

# Seconds: hooks and full disks make a freeze wait; a thaw of ours waits for little.
FREEZE_PATIENCE, THAW_PATIENCE = 600.0, 180.0

# Seconds: for so long a thaw that fails is tried again, with so much between two tries.
RETRIES_END, RETRY_DELAY = 60.0, 1.0


class Freezing(Connection):
    def freeze(
        self, mountpoints: Iterable[str] | None = None, *, timeout: float = FREEZE_PATIENCE
    ) -> Frozen:
        """Freeze filesystems: all, or those mounted at `mountpoints`.

        As a context it thaws them at the end, whatever happens before:

            with agent.freeze() as frozen:
                print(f"{frozen.count} filesystems are frozen")
        """
        command, arguments = "guest-fsfreeze-freeze", {}
        if mountpoints is not None:
            command += "-list"
            arguments["mountpoints"] = list(mountpoints)
        self.sync()
        frozen = Frozen(self)
        try:
            frozen.count = self._ask_patiently(command, int, timeout=timeout, **arguments)
        except CommandError:
            raise  # an agent that fails to freeze leaves nothing frozen
        except BaseException:
            frozen.thaw()
            raise
        return frozen

    def thaw(self, *, timeout: float = THAW_PATIENCE) -> int:
        """Thaw whatever is frozen, by whomever; how many filesystems were thawed."""
        return self._ask_patiently("guest-fsfreeze-thaw", int, timeout=timeout)

    def freeze_status(self) -> str:
        """frozen or thawed."""
        return self._ask("guest-fsfreeze-status", str)


class Frozen:
    """Filesystems that we have frozen: `count` of them. `thawed` is None until they are thawed."""

    def __init__(self, agent: Freezing) -> None:
        self.count = 0
        self.thawed: int | None = None
        self._agent = agent

    def __enter__(self) -> Frozen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.thaw()
        except FreezeEnded:
            if error is None:
                raise

    def thaw(self) -> int:
        """Thaw, trying again where that fails; how many filesystems were thawed.

        FreezeEnded if something else has thawed them in the meantime, ThawFailed if nothing
        helps.
        """
        if self.thawed is None:
            self.thawed = self._thaw_until_done()
            if self.count and not self.thawed:
                raise self._failure(
                    FreezeEnded,
                    "the freeze had ended before: what was done meanwhile may not be consistent",
                )
        return self.thawed

    def _thaw_until_done(self) -> int:
        deadline = time.monotonic() + RETRIES_END
        while True:
            try:
                return self._agent.thaw()
            except AgentError as error:
                if self._is_done_in_spite_of(error):
                    raise
                if time.monotonic() > deadline:
                    raise self._failure(
                        ThawFailed, f"the filesystems may still be FROZEN: {error.reason}"
                    ) from error
            time.sleep(RETRY_DELAY)

    def _is_done_in_spite_of(self, error: AgentError) -> bool:
        """An error may also be that of a hook, behind a thaw that has succeeded."""
        try:
            return isinstance(error, CommandError) and self._agent.freeze_status() == "thawed"
        except AgentError:
            return False

    def _failure(self, kind: type[AgentError], reason: str) -> AgentError:
        return kind(reason, address=self._agent.address, command="guest-fsfreeze-thaw")
