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
- A thaw that could not look at every filesystem is an error, since its count would be wrong. So
  that it can, some descriptors are reserved before a freeze and released for the thaw.
- A filesystem whose disk is gone is left out of the freeze, and the log says so.
- Whatever freeze hook has run, its thaw hook runs.
- guest-fsfreeze-status waits for a freeze or thaw that is under way, on whatever channel: Proxmox
  VE takes its answer for the outcome of a freeze that it no longer waits for.
- A host that never thaws leaves no guest frozen: after `freeze-timeout` the agent thaws by
  itself, and a later thaw returns 0, so that the snapshot cannot pass for a consistent one. It
  does so after `fsfreeze-orphan-timeout` where nobody waits for the reply to the freeze (libvirt
  gives up, and never thaws) and nobody asks for the status, as Proxmox VE does.
"""

from __future__ import annotations

import errno
import os
import time
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import suppress
from fcntl import ioctl
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, Optional, TypedDict

from qga import CommandGroup, NotRequired, QgaError, command
from qga.errors import NotYet
from qga.wording import counted

from ._hooks import Hooks, diagnose_hooks
from ._ioctl import ioctl_number
from ._mounts import Mount, ask_in_time, block_mounts, open_mount

if TYPE_CHECKING:
    from qga.findings import Finding
    from qga.loop import Timer
    from qga.plugin.services import Services
    from qga.settings.config import Config

# <linux/fs.h>
_FIFREEZE = ioctl_number("both", "X", 119, 4)
_FITHAW = ioctl_number("both", "X", 120, 4)

# A kind of filesystem that cannot be frozen; one that somebody else has frozen.
_PASSED_OVER = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EBUSY)
# The disk is gone, or what is left of it takes no more writes.
_GONE = (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ESTALE, errno.EROFS)
# Errors after which a thaw does not know whether a filesystem is frozen.
_BLIND = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

_ENDED = "the freeze was ended by guest-fsfreeze-thaw"
_RETRY = 1.0  # seconds
_LOOK_AGAIN = 0.05  # seconds
_NO_NAME = "-" * 256
_BUSY = 10.0  # seconds that a disk may take
_SPARE = 8  # descriptors: a mount point's, and those of a hook's pipes

GuestFsfreezeStatus = Literal["thawed", "frozen"]

QgaFreeze = TypedDict(
    "QgaFreeze",
    {
        "status": Literal["thawed", "freezing", "frozen"],
        "seconds": NotRequired[float],
        "thaw-in": NotRequired[float],
    },
)


class Freeze(CommandGroup):
    """Freezing and thawing filesystems."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._complete = agent.frozen  # by an agent before this one
        self._busy = False
        self._thaws = 0  # under way
        self._given_up = False
        self._lock = allocate_lock()  # of these; not held while anything may wait
        self._frozen: dict[tuple[int, int], int] = {}  # descriptors by device
        self._freezing: tuple[int, int] | None = None  # a thaw of this one would wait with it
        self._spare: list[int] = []
        self._hooks = Hooks(agent.config.fsfreeze_hook, agent.config.fsfreeze_hook_timeout)
        self._time_limit: Timer | None = None
        self._orphan_limit: Timer | None = None
        self._status_known = False  # somebody was told since the last freeze began

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
        """Whether the filesystems are frozen: all that were to be, or not.

        Answered when no freeze or thaw is under way.
        """
        if self._busy or self._thaws:
            raise NotYet
        self._status_known = True
        if self._orphan_limit is not None:
            self._orphan_limit.cancel()
            self._orphan_limit = None
        return "frozen" if self._complete else "thawed"

    @command(access="filesystem", frozen=True, changes=False)
    def qga_get_freeze(self) -> QgaFreeze:
        """Report whether the filesystems are frozen, without waiting for a freeze under way.

        Returns the status; while frozen, for how many seconds, and in how many the agent thaws
        by itself, where that is known.
        """
        if not self.agent.frozen:
            return {"status": "freezing" if self._busy else "thawed"}
        found: QgaFreeze = {"status": "frozen" if self._complete else "freezing"}
        state = self.agent.state
        for key, seconds in (
            ("seconds", state.seconds_frozen()),
            ("thaw-in", state.seconds_to_thaw()),
        ):
            if seconds is not None:
                found[key] = round(seconds, 3)  # type: ignore[literal-required]
        return found

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
                raise QgaError("a freeze is going on already")
            self._busy, self._given_up, self._status_known = True, False, False
        try:
            while self._thaws and not self._given_up:  # it would thaw what is frozen now
                time.sleep(_LOOK_AGAIN)
            if self._given_up:
                raise QgaError(_ENDED)
            count = self._freeze_or_undo([m for m in mounts if not self._is_excluded(m)])
        finally:
            self._busy = False
            self.agent.try_again()
        patience = self.agent.config.fsfreeze_reply_timeout
        if patience and time.monotonic() - start > patience:
            self.agent.loop.post(self._expect_question)
        return count

    def _freeze_or_undo(self, mounts: list[Mount]) -> int:
        self._take_spare_descriptors()
        self._hooks.freeze()
        count, failure = 0, None
        marked = False
        try:
            self.agent.freeze(self.agent.config.freeze_timeout)
            marked = True
            for mount in reversed(mounts):
                try:
                    count += self._freeze_one(mount)
                except _Gone as gone:
                    failure = failure or gone
                    self.agent.log.warning(f"{gone}; it is left out of the freeze")
            if failure is not None and not count:
                raise failure
            with self._lock:
                if self._given_up:
                    raise QgaError(_ENDED)
                self._complete = count > 0
        finally:
            if not self._complete:
                if marked:
                    with suppress(QgaError):
                        self._thaw()
                self._give_spare_descriptors()
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
            kind = _Gone if error.errno in _GONE else QgaError
            raise kind(f"failed to freeze {mount.paths[0]}: {error.strerror}") from error
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

    def _expect_question(self) -> None:
        """Thaw soon unless somebody asks for the status: nobody may know of the freeze."""
        seconds = self.agent.config.fsfreeze_orphan_timeout
        if seconds and self._complete and not (self._status_known or self._orphan_limit):
            self._orphan_limit = self.agent.loop.call_later(seconds, self._thaw_orphan)

    def _thaw_orphan(self) -> None:
        self._orphan_limit = None
        self._thaw_by_itself(
            "nobody waits for the reply to the freeze, and nobody has asked for its status "
            f"within {self.agent.config.fsfreeze_orphan_timeout} s (fsfreeze-orphan-timeout)"
        )

    def _thaw_overdue(self) -> None:
        self._time_limit = None
        self._thaw_by_itself("nobody has thawed the filesystems in time (freeze-timeout)")

    def _thaw_by_itself(self, why: str) -> None:
        def tell(count: Any, error: BaseException | None) -> None:
            log = self.agent.log
            log.error(
                f"{why}: {counted(count or 0, 'is', 'are')} thawed now, and a snapshot "
                "that is not complete by now is not consistent"
            )
            if error is not None:
                log.error(f"guest-fsfreeze-thaw: {error}")

        try:
            self.agent.worker.submit(self.guest_fsfreeze_thaw, tell, urgent=True)
        except QgaError:  # so many thaws hang
            self._time_limit = self.agent.loop.call_later(_RETRY, lambda: self._thaw_by_itself(why))

    def _thaw_with_hooks(self) -> int:
        count, failure = 0, None
        try:
            count = self._thaw()
        except QgaError as error:
            if self._complete:  # all is as it was
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
        """Thaw, and return to normal; how many filesystems were thawed.

        QgaError when some could not be looked at. It then stays frozen where another agent has
        frozen, for nothing else tells what that was.
        """
        with self._lock:
            frozen, self._frozen = self._frozen, {}
        self._give_spare_descriptors()
        thawed = set()
        for device, fd in reversed(frozen.items()):  # a thaw writes to what is beneath
            if _thaw_once(fd):
                thawed.add(device)
            os.close(fd)
        blind: OSError | None = None
        try:
            for mount in block_mounts():
                try:
                    if mount.device != self._freezing and _thaw_fully(mount):
                        thawed.add(mount.device)
                except OSError as error:
                    blind = error
        except OSError as error:
            blind = error
        if blind is None or frozen or not self._complete:
            self._complete = False
            self.agent.thaw()
        if blind is not None:
            raise QgaError(
                f"thawed {counted(len(thawed), 'filesystem')}, but cannot look for others: "
                f"{blind.strerror}"
            )
        return len(thawed)

    def _end_thaw(self) -> None:
        with self._lock:
            self._thaws -= 1
        self.agent.try_again()

    def _look_into_marker(self) -> None:
        """Return to normal if the marker is doubtful and no filesystem is frozen."""
        try:
            if not any(map(_is_frozen, block_mounts())):
                self.agent.log.warning(
                    f"{self.agent.state.marker} does not say who has frozen filesystems, and none "
                    "is frozen: it is stale and ignored"
                )
                self._complete = False
                self.agent.thaw()
        finally:
            self._end_thaw()

    def _take_spare_descriptors(self) -> None:
        try:
            while len(self._spare) < _SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            self._give_spare_descriptors()
            reason = f"nothing was frozen, because a thaw would fail: {error.strerror}"
            raise QgaError(reason) from error

    def _give_spare_descriptors(self) -> None:
        with self._lock:
            spare, self._spare = self._spare, []
        for fd in spare:
            os.close(fd)


class _Gone(QgaError):
    """The disk of a filesystem is gone."""


def _is_frozen(mount: Mount) -> bool:
    """Whether anybody has frozen it. Changes nothing.

    On a frozen filesystem the removal of a file waits for the thaw. Elsewhere it fails at once,
    because no filesystem has names as long as this one.
    """
    try:
        fd = open_mount(mount)
    except OSError:
        return False
    if fd is None:
        return False
    try:
        ask_in_time(
            f"removal at {mount.paths[0]}", lambda _: os.unlink(_NO_NAME, dir_fd=fd), patience=_BUSY
        )
    except OSError as error:
        return isinstance(error, TimeoutError)
    finally:
        os.close(fd)
    return False


def _thaw_fully(mount: Mount) -> bool:
    """Thaw a filesystem as often as it was frozen; whether it was. OSError if that is unknown."""
    try:
        fd = open_mount(mount)
    except OSError as error:
        if error.errno in _BLIND:
            raise
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
