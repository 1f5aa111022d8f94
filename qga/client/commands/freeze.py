"""Freezing the guest's filesystems, so that a consistent snapshot can be taken.

What must stay true: a freeze is always followed by a thaw, unless the guest cannot be reached for
longer than RETRIES_END. An inconsistent snapshot never passes for a good one: it is an error if a
freeze froze nothing, or only a part of what was asked for, or ended before its thaw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import NoReturn, TypeVar

from qga.client.commands.filesystems import Filesystems
from qga.client.errors import (
    AgentError,
    CommandError,
    CommandNotFound,
    FreezeEnded,
    GuestFrozen,
    NothingFrozen,
    ThawFailed,
)
from qga.client.storage import FreezeState
from qga.client.transports import Transport
from qga.client.waits import undisturbed
from qga.wording import counted

T = TypeVar("T")

# Seconds: hooks and full disks make a freeze wait; a thaw of ours waits for little.
FREEZE_PATIENCE, THAW_PATIENCE = 600.0, 180.0

FROZEN = "frozen"

# Allowed while filesystems are frozen, so a refusal has another reason.
ALWAYS_ANSWERED = ("guest-fsfreeze-status", "qga-get-freeze")

# Seconds for which a failed thaw is retried, and seconds between two attempts.
RETRIES_END, RETRY_DELAY = 60.0, 1.0


class Freezing(Filesystems):
    def freeze(
        self, mountpoints: Iterable[str] | None = None, *, timeout: float = FREEZE_PATIENCE
    ) -> Frozen:
        """Freeze filesystems: all, or those mounted at `mountpoints`.

        Raises NothingFrozen, after thawing everything, if one of these is not the mount point of a
        filesystem that can be frozen, or if the agent froze nothing or fewer filesystems.

        Use the result as a context manager, which always thaws at the end:

            with agent.freeze() as frozen:
                print(f"{frozen.count} filesystems are frozen")
        """
        command, arguments, expected = "guest-fsfreeze-freeze", {}, 1
        if mountpoints is not None:
            command += "-list"
            arguments["mountpoints"] = list(mountpoints)
            expected = self._count_filesystems(arguments["mountpoints"], command)
        self.sync()
        frozen = Frozen(self)
        try:
            frozen.count = self._ask_patiently(command, int, timeout=timeout, **arguments)
            state = self._reported()  # asking keeps qga from thawing the freeze as orphaned
        except CommandError:
            raise  # an agent that fails to freeze leaves nothing frozen
        except BaseException:
            frozen.thaw()
            raise
        if frozen.count < expected:
            frozen.give_up(command, expected)
        if state != FROZEN:
            frozen.thaw()
            reason = f"the freeze did not last: the guest reports '{state}' right after it"
            raise FreezeEnded(reason, address=self.address, command=command)
        return frozen

    def _reported(self) -> str:
        """The status after a freeze; `frozen` if the agent does not permit asking."""
        try:
            return self.freeze_status()
        except CommandError:
            return FROZEN

    def _count_filesystems(self, mountpoints: Sequence[str], command: str) -> int:
        """The least number of filesystems at these paths, which need not be mount points."""
        try:
            devices = {each.mountpoint: each.name for each in self.filesystems()}
        except CommandError:  # not allowed, or the command fails in this guest
            return 1
        paths = [path.rstrip("/") or "/" for path in mountpoints]
        unknown = [path for path in paths if path not in devices]
        if unknown:
            reason = f"nothing was frozen: no disk of the guest is mounted at {', '.join(unknown)}"
            raise NothingFrozen(reason, address=self.address, command=command)
        return max(1, len({devices[path] for path in paths}))

    def thaw(self, *, timeout: float = THAW_PATIENCE) -> int:
        """Thaw all frozen filesystems, and return their number."""
        return self._ask_patiently("guest-fsfreeze-thaw", int, timeout=timeout)

    def freeze_status(self) -> str:
        """`frozen` or `thawed`."""
        return self._ask("guest-fsfreeze-status", str)

    def freeze_state(self) -> FreezeState:
        """The status; with qga also for how long it has lasted and when the agent will thaw."""
        try:
            return self._ask("qga-get-freeze", FreezeState)
        except CommandError:
            return FreezeState(self.freeze_status())

    def _perform(
        self, command: str, timeout: float | None, step: Callable[[Transport, float], T]
    ) -> T:
        """Raise GuestFrozen if that is why a command was refused."""
        try:
            return super()._perform(command, timeout, step)
        except CommandNotFound as refusal:
            if "disabled" in refusal.desc and command not in ALWAYS_ANSWERED:
                state = self._state_behind(refusal)
                if state.status != "thawed":
                    raise GuestFrozen(refusal, state.seconds) from None
            raise

    def _state_behind(self, refusal: CommandNotFound) -> FreezeState:
        try:
            return self.freeze_state()
        except AgentError:
            raise refusal from None


class Frozen:
    """Filesystems that were frozen: `count` of them. `thawed` is None until they are thawed."""

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
        """Thaw, with retries, and return how many filesystems were thawed.

        Raises FreezeEnded if something else has thawed them meanwhile, and ThawFailed if all
        retries fail.
        """
        if self.thawed is None:
            self.thawed = self._thaw_until_done()
            if self.thawed < self.count:
                raise self._failure(
                    FreezeEnded,
                    f"the freeze did not last: {self.count - max(0, self.thawed)} of "
                    f"{counted(self.count, 'filesystem')} had been thawed already, and a snapshot "
                    "taken meanwhile may not be consistent",
                )
        return self.thawed

    def give_up(self, command: str, expected: int) -> NoReturn:
        """Thaw what was frozen of fewer filesystems than expected, and raise NothingFrozen."""
        count, self.count = self.count, 0
        self.thaw()  # QEMU's agent has run its freeze hook nevertheless
        reason = "nothing was frozen"
        if count > 0:
            wanted = counted(expected, "filesystem")
            reason = f"only {count} of {wanted} could be frozen; thawed again"
        raise NothingFrozen(reason, address=self._agent.address, command=command)

    def _thaw_until_done(self) -> int:
        deadline = time.monotonic() + RETRIES_END
        while True:
            try:
                with undisturbed():
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
        """Whether the thaw has succeeded although it returned an error, such as that of a hook."""
        try:
            return isinstance(error, CommandError) and self._agent.freeze_status() == "thawed"
        except AgentError:
            return False

    def _failure(self, kind: type[AgentError], reason: str) -> AgentError:
        return kind(reason, address=self._agent.address, command="guest-fsfreeze-thaw")
