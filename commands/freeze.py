"""Freezing the filesystems, so that the host can take a consistent snapshot.

What must stay true:

- From the first freeze to the thaw nothing is written: the agent is `frozen`, logs nothing and
  runs only commands that are marked so. The marker in the state directory, which outlives the
  agent, is created before.
- The last mounted filesystem is frozen first. When one fails, all are thawed again. One whose disk
  is gone is left out, and the log says so.
- Whatever freeze hook has run, its thaw hook runs.
- guest-fsfreeze-status waits for a freeze or thaw in progress, on whatever channel: Proxmox VE
  takes its answer for the outcome of a freeze that it no longer waits for.
- A host that never thaws leaves no guest frozen: after `freeze-timeout` the agent thaws by itself,
  and a later thaw returns 0, so that the snapshot cannot pass for a consistent one. It does so
  after `fsfreeze-orphan-timeout` if nobody waits for the reply to the freeze (libvirt gives up, and
  never thaws) and nobody asks for the status, as Proxmox VE does.

The kernel's part is in _freezer.
"""

from __future__ import annotations

import time
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, Optional

from qga import CommandGroup, NotRequired, QgaError, command
from qga.errors import NotYet
from qga.records import TypedDict
from qga.wording import counted

from ._freezer import Freezer, Gone, Skipped, any_frozen
from ._hooks import Hooks, diagnose_hooks
from ._mounts import Mount, as_reported, block_mounts, is_read_only

if TYPE_CHECKING:
    from qga.findings import Finding
    from qga.loop import Timer
    from qga.plugin.services import Services
    from qga.settings.config import Config

_RETRY = 1.0  # seconds
_LOOK_AGAIN = 0.05  # seconds

GuestFsfreezeStatus = Literal["thawed", "frozen"]

QgaFrozenFilesystem = TypedDict(
    "QgaFrozenFilesystem", {"mountpoint": str, "type": str, "reason": NotRequired[str]}
)

QgaFreeze = TypedDict(
    "QgaFreeze",
    {
        "status": Literal["thawed", "freezing", "frozen"],
        "seconds": NotRequired[float],
        "thaw-in": NotRequired[float],
        "filesystems": NotRequired[list[QgaFrozenFilesystem]],
        "left-out": NotRequired[list[QgaFrozenFilesystem]],
        "hooks": NotRequired[list[str]],
    },
)


class Freeze(CommandGroup):
    """Freezing and thawing filesystems."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._freezer = Freezer(complete=agent.frozen)
        self._lock = allocate_lock()  # of the next two
        self._busy = False  # with a freeze
        self._thaws = 0  # in progress
        config = agent.config
        self._hooks = Hooks(
            config.fsfreeze_hook, config.fsfreeze_hook_timeout, config.freeze_timeout
        )
        self._time_limit: Timer | None = None
        self._orphan_limit: Timer | None = None
        # What the last freeze of this agent froze, and what it left out. None before the first.
        self._filesystems: list[QgaFrozenFilesystem] | None = None
        self._left_out: list[QgaFrozenFilesystem] = []
        self._status_known = False  # whether a client got it since the last freeze began

    def on_start(self) -> None:
        if not self.agent.frozen:
            return
        self.on_freeze()
        if self.agent.state.doubtful:
            self._thaws += 1
            self.agent.worker.submit(self._look_into_marker, lambda *_: None, urgent=True)

    def on_freeze(self) -> None:
        seconds = self.agent.state.seconds_to_thaw()
        if seconds is None:  # the marker is of another agent
            seconds = self.agent.config.freeze_timeout or None
        if seconds is not None:
            self._time_limit = self.agent.loop.call_later(seconds, self._thaw_overdue)

    def on_thaw(self) -> None:
        for timer in (self._time_limit, self._orphan_limit):
            if timer is not None:
                timer.cancel()
        self._time_limit = self._orphan_limit = None

    def on_unheard(self, command: str) -> None:
        if command in ("guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list"):
            self._expect_question()

    @command(access="filesystem", frozen=True, changes=False, timed=False)
    def guest_fsfreeze_status(self) -> GuestFsfreezeStatus:
        """Report whether the filesystems are frozen.

        While a freeze or thaw is in progress, the reply waits for its end.
        """
        if self._busy or self._thaws:
            raise NotYet
        self._status_known = True
        if self._orphan_limit is not None:
            self._orphan_limit.cancel()
            self._orphan_limit = None
        return "frozen" if self._freezer.complete else "thawed"

    @command(access="filesystem", frozen=True, changes=False)
    def qga_get_freeze(self) -> QgaFreeze:
        """Report whether the filesystems are frozen, without waiting for a freeze in progress.

        Returns the status and, if known, for how many seconds the filesystems have been frozen and
        after how many more the agent thaws by itself. If this agent has frozen them: also which
        they are, which writable ones were left out and why, and the freeze hooks that have run.
        """
        if not self.agent.frozen:
            return {"status": "freezing" if self._busy else "thawed"}
        found: QgaFreeze = {"status": "frozen" if self._freezer.complete else "freezing"}
        state = self.agent.state
        for key, seconds in (
            ("seconds", state.seconds_frozen()),
            ("thaw-in", state.seconds_to_thaw()),
        ):
            if seconds is not None:
                found[key] = round(seconds, 3)  # type: ignore[literal-required]
        if self._freezer.complete and self._filesystems is not None:
            found["filesystems"], found["left-out"] = self._filesystems, self._left_out
            found["hooks"] = self._hooks.ran
        return found

    @command(access="filesystem", blocking=True, timed=False)
    def guest_fsfreeze_freeze(self) -> int:
        """Freeze all filesystems on block devices.

        Returns the number of filesystems that were frozen. After an error, none is frozen.
        """
        return self._freeze(block_mounts())

    @command(access="filesystem", blocking=True, timed=False)
    def guest_fsfreeze_freeze_list(self, mountpoints: Optional[list[str]] = None) -> int:
        """Freeze the filesystems at the given mount points.

        mountpoints: paths, by default those of all filesystems. Paths that are not mount points are
            ignored.
        Returns the number of filesystems that were frozen. After an error, none is frozen.
        """
        mounts = block_mounts()
        if mountpoints is not None:
            wanted = {path.rstrip("/") or "/" for path in mountpoints if path}
            mounts = [
                mount
                for mount in mounts
                if any(path in wanted or as_reported(path) in wanted for path in mount.paths)
            ]
        return self._freeze(mounts)

    @command(access="filesystem", blocking=True, frozen=True, timed=False)
    def guest_fsfreeze_thaw(self) -> int:
        """Thaw all frozen filesystems, including those that others froze.

        Returns the number of filesystems that were thawed. If a hook fails, they are thawed anyway.
        """
        with self._lock:
            self._freezer.give_up()
            self._thaws += 1
        try:
            return self._thaw_with_hooks()
        finally:
            self._end_thaw()

    @classmethod
    def do_diagnose(cls, config: Config) -> Iterator[Finding]:
        yield from diagnose_hooks(config.fsfreeze_hook)

    def _freeze(self, mounts: list[Mount]) -> int:
        start = time.monotonic()
        with self._lock:
            if self._busy:
                raise QgaError("a freeze is already in progress")
            self._busy, self._status_known = True, False
            self._freezer.begin()
        try:
            while self._thaws:  # it would thaw what is frozen now
                self._freezer.check()
                time.sleep(_LOOK_AGAIN)
            self._freezer.check()
            count = self._freeze_or_undo(mounts)
        finally:
            self._busy = False
            self.agent.try_again()
        patience = self.agent.config.fsfreeze_reply_timeout
        if patience and time.monotonic() - start > patience:
            self.agent.loop.post(self._expect_question)
        return count

    def _freeze_or_undo(self, mounts: list[Mount]) -> int:
        freezer = self._freezer
        freezer.reserve()
        self._hooks.freeze()
        marked = False
        try:
            self.agent.freeze(self.agent.config.freeze_timeout)
            marked = True
            count = self._freeze_all(mounts)
            freezer.finish()
        finally:
            if not freezer.complete:
                if marked:
                    with suppress(QgaError):
                        self._thaw()
                freezer.release()
                self._hooks.undo()
        return count

    def _freeze_all(self, mounts: list[Mount]) -> int:
        frozen: list[QgaFrozenFilesystem] = []
        failure = None
        self._filesystems, self._left_out = frozen, []
        for mount in reversed(mounts):
            try:
                if self._is_excluded(mount):
                    raise Skipped("the guest's configuration excludes it (fsfreeze-exclude)")
                self._freezer.freeze(mount)
                frozen.append({"mountpoint": mount.paths[0], "type": mount.type})
            except Skipped as skipped:
                self._leave_out(mount, str(skipped))
            except Gone as gone:
                failure = failure or gone
                self.agent.log.warning(f"{gone}; it is left out of the freeze")
                self._leave_out(mount, str(gone))
        if failure is not None and not frozen:
            raise failure
        return len(frozen)

    def _leave_out(self, mount: Mount, reason: str) -> None:
        # What nobody can write to is consistent anyway, such as the images of snap packages.
        if not is_read_only(mount):
            self._left_out.append(
                {"mountpoint": mount.paths[0], "type": mount.type, "reason": reason}
            )

    def _is_excluded(self, mount: Mount) -> bool:
        """Whether fsfreeze-exclude matches all of its mount points."""
        patterns = self.agent.config.fsfreeze_exclude
        return all(any(fnmatchcase(path, pattern) for pattern in patterns) for path in mount.paths)

    def _expect_question(self) -> None:
        """Thaw soon unless a client asks for the status: nobody may know of the freeze."""
        seconds = self.agent.config.fsfreeze_orphan_timeout
        if seconds and self._freezer.complete and not (self._status_known or self._orphan_limit):
            self._orphan_limit = self.agent.loop.call_later(seconds, self._thaw_orphan)

    def _thaw_orphan(self) -> None:
        self._orphan_limit = None
        self._thaw_by_itself(
            "no client waits for the reply to the freeze, and none has asked for the status "
            f"within {self.agent.config.fsfreeze_orphan_timeout} s (fsfreeze-orphan-timeout)"
        )

    def _thaw_overdue(self) -> None:
        self._time_limit = None
        self._thaw_by_itself("the filesystems were not thawed in time (freeze-timeout)")

    def _thaw_by_itself(self, why: str) -> None:
        def report(count: Any, error: BaseException | None) -> None:
            log = self.agent.log
            if error is not None and self._freezer.complete:  # it could not look at all of them
                log.error(f"{why}: guest-fsfreeze-thaw: {error}; it is tried again")
                self._thaw_later(why)
                return
            log.error(
                f"{why}: thawed {counted(count or 0, 'filesystem')}; a snapshot that was not "
                "complete before is not consistent"
            )
            if error is not None:
                log.error(f"guest-fsfreeze-thaw: {error}")

        try:
            self.agent.worker.submit(self.guest_fsfreeze_thaw, report, urgent=True)
        except QgaError:  # all threads are busy, for other thaws hang
            self._thaw_later(why)

    def _thaw_later(self, why: str) -> None:
        if self._time_limit is not None:
            self._time_limit.cancel()
        self._time_limit = self.agent.loop.call_later(_RETRY, lambda: self._thaw_by_itself(why))

    def _thaw_with_hooks(self) -> int:
        count, failure = 0, None
        try:
            count = self._thaw()
        except QgaError as error:
            if self._freezer.complete:  # another agent's freeze: nothing has changed
                raise
            failure = error
        try:
            self._hooks.thaw()
        except QgaError as error:
            failure = failure or error
        if failure is not None:
            raise failure
        return count

    def _thaw(self) -> int:
        """Thaw, and return to normal. Raises QgaError if it could not look at all filesystems."""
        count, blind = self._freezer.thaw()
        if not self._freezer.complete:
            self.agent.thaw()
        if blind is not None:
            raise QgaError(
                f"thawed {counted(count, 'filesystem')}, but cannot look for others: "
                f"{blind.strerror}"
            )
        return count

    def _end_thaw(self) -> None:
        with self._lock:
            self._thaws -= 1
        self.agent.try_again()

    def _look_into_marker(self) -> None:
        """Return to normal if the marker is doubtful and no filesystem is frozen."""
        try:
            if not any_frozen():
                self.agent.log.warning(
                    f"{self.agent.state.marker} is stale and ignored: it does not name an agent, "
                    "and no filesystem is frozen"
                )
                self._freezer.complete = False
                self.agent.thaw()
        finally:
            self._end_thaw()
