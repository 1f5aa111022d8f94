"""Freezing the filesystems, so that the host can take a consistent snapshot.

What must stay true:

- From the first freeze to the thaw nothing is written: the agent is `frozen`, logs nothing and
  carries out no command but those marked so. The marker of the state directory, which outlives
  the agent, is made before.
- A filesystem is frozen once, however often it is mounted, the last mounted first. When one
  fails all are thawed again.
- A thaw works whatever happened in between: through the descriptors that were frozen, the last
  frozen first, then through the mount table until nothing more thaws; also while a freeze
  hangs, also when another agent, or this one before a restart, has frozen.
- Whatever freeze hook has run, its thaw hook runs.
- A host that never thaws leaves no guest frozen: after `freeze-timeout` the agent thaws by
  itself, and a later thaw returns 0, so that the snapshot cannot pass for a consistent one.
"""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock
from collections.abc import Iterator
from fcntl import ioctl
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, Optional

from qga import CommandGroup, QgaError, command

from ._hooks import Hooks, diagnose_hooks
from ._mounts import Mount, block_mounts, open_mount

if TYPE_CHECKING:
    from qga.agent import Agent
    from qga.config import Config
    from qga.findings import Finding
    from qga.loop import Timer

_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878  # <linux/fs.h>

# A kind of filesystem that cannot be frozen; one that somebody else has frozen.
_PASSED_OVER = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EBUSY)

_ENDED = "the freeze was ended by guest-fsfreeze-thaw"
_RETRY = 1.0  # seconds

GuestFsfreezeStatus = Literal["thawed", "frozen"]


class Freeze(CommandGroup):
    """Freezing and thawing filesystems."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self._complete = agent.frozen  # by an agent before this one
        self._busy = False
        self._given_up = False
        self._lock = allocate_lock()  # of these; not held while anything may wait
        self._frozen: dict[tuple[int, int], int] = {}  # descriptors by device
        self._freezing: tuple[int, int] | None = None  # a thaw of this one would wait with it
        self._hooks = Hooks(agent.config.fsfreeze_hook, agent.config.fsfreeze_hook_timeout)
        self._time_limit: Timer | None = None

    def start(self) -> None:
        if self.agent.frozen:
            self.on_freeze()

    def on_freeze(self) -> None:
        seconds = self.agent.state.seconds_to_thaw()
        if seconds is None:  # the marker is of another agent
            seconds = self.agent.config.freeze_timeout or None
        if seconds is not None:
            self._time_limit = self.agent.loop.call_later(seconds, self._thaw_overdue)

    def on_thaw(self) -> None:
        if self._time_limit is not None:
            self._time_limit.cancel()

    @command(access="filesystem", frozen=True, changes=False)
    def guest_fsfreeze_status(self) -> GuestFsfreezeStatus:
        """Whether the filesystems are frozen: all that were to be, or not."""
        return "frozen" if self._complete else "thawed"

    @command(access="filesystem", blocking=True, timed=False)
    def guest_fsfreeze_freeze(self) -> int:
        """Freeze all filesystems on block devices.

        Returns how many were frozen. After an error none is.
        """
        return self._freeze(block_mounts())

    @command(access="filesystem", blocking=True, timed=False)
    def guest_fsfreeze_freeze_list(self, mountpoints: Optional[list[str]] = None) -> int:
        """Freeze some filesystems.

        mountpoints: where they are mounted; all filesystems without it. What is no mount point
            is passed over.
        Returns how many were frozen. After an error none is.
        """
        mounts = block_mounts()
        if mountpoints is not None:
            wanted = {path.rstrip("/") or "/" for path in mountpoints}
            mounts = [mount for mount in mounts if wanted.intersection(mount.paths)]
        return self._freeze(mounts)

    @command(access="filesystem", blocking=True, frozen=True, timed=False)
    def guest_fsfreeze_thaw(self) -> int:
        """Thaw whatever is frozen, by whomever.

        Returns how many filesystems were thawed. An error of a hook does not undo the thaw.
        """
        with self._lock:
            self._given_up = True  # tells a freeze that still goes on
        count = self._thaw()
        self._hooks.thaw()
        return count

    @classmethod
    def diagnose(cls, config: Config) -> Iterator[Finding]:
        yield from diagnose_hooks(config.fsfreeze_hook)

    def _freeze(self, mounts: list[Mount]) -> int:
        with self._lock:
            if self._busy:
                raise QgaError("a freeze is going on already")
            self._busy, self._given_up = True, False
        try:
            return self._freeze_or_undo([m for m in mounts if not self._is_excluded(m)])
        finally:
            self._busy = False

    def _freeze_or_undo(self, mounts: list[Mount]) -> int:
        self._hooks.freeze()
        count = 0
        try:
            self.agent.freeze(self.agent.config.freeze_timeout)
            for mount in reversed(mounts):
                count += self._freeze_one(mount)
            self._complete = count > 0
        finally:
            if not self._complete:
                self._thaw()
                self._hooks.undo()
        return count

    def _freeze_one(self, mount: Mount) -> bool:
        """Freeze a filesystem; whether that was done, or need not or cannot be."""
        try:
            fd = open_mount(mount)
            if fd is None:
                return False
            try:
                self._go_on_with(mount.device)
                ioctl(fd, _FIFREEZE)
            except BaseException:
                os.close(fd)
                raise
            finally:
                self._freezing = None
        except OSError as error:
            if error.errno in _PASSED_OVER:
                return False
            raise QgaError(f"failed to freeze {mount.paths[0]}: {error.strerror}") from error
        with self._lock:
            if not self._given_up:
                self._frozen[mount.device] = fd
                return True
        _thaw_once(fd)
        os.close(fd)
        raise QgaError(_ENDED)

    def _go_on_with(self, device: tuple[int, int]) -> None:
        with self._lock:
            if self._given_up:
                raise QgaError(_ENDED)
            self._freezing = device

    def _is_excluded(self, mount: Mount) -> bool:
        """Whether the administrator wants it left alone, wherever it is mounted."""
        patterns = self.agent.config.fsfreeze_exclude
        return all(any(fnmatchcase(path, pattern) for pattern in patterns) for path in mount.paths)

    def _thaw_overdue(self) -> None:
        try:
            self.agent.worker.submit(self.guest_fsfreeze_thaw, self._tell_overdue, urgent=True)
        except QgaError:  # so many thaws hang
            self._time_limit = self.agent.loop.call_later(_RETRY, self._thaw_overdue)

    def _tell_overdue(self, count: Any, error: BaseException | None) -> None:
        log = self.agent.log
        log.error(
            f"nobody has thawed the filesystems in time (freeze-timeout): {count or 0} are thawed "
            "now, and a snapshot that is not complete by now is not consistent"
        )
        if error is not None:
            log.error(f"guest-fsfreeze-thaw: {error}")

    def _thaw(self) -> int:
        """Thaw, and return to normal; how many filesystems were thawed."""
        with self._lock:
            frozen, self._frozen = self._frozen, {}
        thawed = set()
        for device, fd in reversed(frozen.items()):  # a thaw writes to what is beneath
            if _thaw_once(fd):
                thawed.add(device)
            os.close(fd)
        for mount in block_mounts():
            if mount.device != self._freezing and _thaw_fully(mount):
                thawed.add(mount.device)
        self._complete = False
        self.agent.thaw()
        return len(thawed)


def _thaw_fully(mount: Mount) -> bool:
    """Thaw a filesystem as often as it was frozen; whether it was."""
    try:
        fd = open_mount(mount)
    except OSError:
        return False
    if fd is None:
        return False
    try:
        was_frozen = False
        while _thaw_once(fd):
            was_frozen = True
        return was_frozen
    finally:
        os.close(fd)


def _thaw_once(fd: int) -> bool:
    try:
        ioctl(fd, _FITHAW)
    except OSError:  # EINVAL: it is not frozen
        return False
    return True
