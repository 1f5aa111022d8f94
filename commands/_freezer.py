"""Freezes and thaws filesystems, and knows which are frozen.

What must stay true:

- A filesystem is frozen once, however often it is mounted.
- A thaw works whatever happened before: through the descriptors that were frozen, the last frozen
  first, then through the mount table until nothing more thaws. It works while a freeze hangs, and
  when another agent, or this one before a restart, has frozen.
- A thaw reports when it could not look at every filesystem, since its count would be wrong. So
  that it can, some descriptors are reserved before a freeze and released for the thaw.
"""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock
from fcntl import ioctl

from qga import QgaError

from ._ioctl import ioctl_number
from ._mounts import Mount, ask_in_time, block_mounts, open_mount

# <linux/fs.h>
_FIFREEZE = ioctl_number("both", "X", 119, 4)
_FITHAW = ioctl_number("both", "X", 120, 4)

_SKIPPED = {
    errno.EOPNOTSUPP: "this type of filesystem cannot be frozen",
    errno.ENOTTY: "this type of filesystem cannot be frozen",
    errno.EBUSY: "another program has frozen it",
}
# The disk is gone, or what is left of it takes no more writes.
_GONE = (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ESTALE, errno.EROFS)
# Errors after which a thaw does not know whether a filesystem is frozen.
_BLIND = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

_NO_NAME = "-" * 256
_BUSY = 10.0  # seconds that a disk may take
_SPARE = 8  # descriptors: a mount point's, and those of a hook's pipes


class Skipped(QgaError):
    """A filesystem cannot be frozen, or need not be. The text is the reason."""


class Gone(QgaError):
    """The disk of a filesystem is gone."""


class Ended(QgaError):
    """The freeze was ended by a thaw."""

    def __init__(self) -> None:
        super().__init__("the freeze was ended by guest-fsfreeze-thaw")


class Freezer:
    """One thread freezes at a time. Others may thaw in the meantime, which ends the freeze.

    complete: whether a freeze has been completed, possibly by an agent before this one.
    """

    def __init__(self, complete: bool) -> None:
        self.complete = complete
        self._given_up = False
        self._lock = allocate_lock()  # protects the following; not held during system calls
        self._frozen: dict[tuple[int, int], int] = {}  # descriptors by device
        self._freezing: tuple[int, int] | None = None
        self._spare: list[int] = []

    def begin(self) -> None:
        """Begin a freeze."""
        self._given_up = False

    def give_up(self) -> None:
        """End the freeze in progress."""
        with self._lock:
            self._given_up = True

    def check(self) -> None:
        """Raise Ended if the freeze was ended."""
        if self._given_up:
            raise Ended

    def reserve(self) -> None:
        """Take spare descriptors. Raises QgaError if there are none."""
        try:
            while len(self._spare) < _SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            self.release()
            reason = f"nothing was frozen, because a thaw would fail: {error.strerror}"
            raise QgaError(reason) from error

    def release(self) -> None:
        """Close the spare descriptors."""
        with self._lock:
            spare, self._spare = self._spare, []
        for fd in spare:
            os.close(fd)

    def freeze(self, mount: Mount) -> None:
        """Freeze a filesystem. Raises Skipped, Gone, Ended, or QgaError if it fails."""
        try:
            fd = open_mount(mount)
            if fd is None:
                raise Skipped("it is hidden under another mount")
            try:
                self._announce(mount.device)
                ioctl(fd, _FIFREEZE)
            except BaseException:
                os.close(fd)
                raise
            finally:
                self._freezing = None
        except OSError as error:
            if error.errno in _SKIPPED:
                raise Skipped(_SKIPPED[error.errno]) from error
            kind = Gone if error.errno in _GONE else QgaError
            raise kind(f"failed to freeze {mount.paths[0]}: {error.strerror}") from error
        with self._lock:
            if not self._given_up:
                self._frozen[mount.device] = fd
                return
        _thaw_once(fd)
        os.close(fd)
        raise Ended

    def finish(self) -> None:
        """Complete the freeze, if any filesystem is frozen. Raises Ended."""
        with self._lock:
            self.check()
            self.complete = bool(self._frozen)

    def thaw(self) -> tuple[int, OSError | None]:
        """Thaw whatever is frozen.

        Returns how many filesystems were thawed, and the error if others could not be looked at. A
        freeze of another agent stays `complete` then, because nothing else shows what it froze.
        """
        with self._lock:
            frozen, self._frozen = self._frozen, {}
        self.release()
        thawed = set()
        for device, fd in reversed(frozen.items()):  # a thaw writes to what is beneath
            if _thaw_once(fd):
                thawed.add(device)
            os.close(fd)
        blind: OSError | None = None
        try:
            for mount in block_mounts():
                try:
                    # Thawing the one that is being frozen would block until it is frozen.
                    if mount.device != self._freezing and _thaw_fully(mount):
                        thawed.add(mount.device)
                except OSError as error:
                    blind = error
        except OSError as error:
            blind = error
        if frozen or blind is None:
            self.complete = False
        return len(thawed), blind

    def _announce(self, device: tuple[int, int]) -> None:
        with self._lock:
            self.check()
            self._freezing = device


def any_frozen() -> bool:
    """Whether any filesystem is frozen, no matter by whom. Changes nothing."""
    return any(map(is_frozen, block_mounts()))


def is_frozen(mount: Mount, patience: float = _BUSY) -> bool:
    """Try to remove a file whose name is too long for any filesystem. On a frozen filesystem this
    blocks until the thaw, otherwise it fails at once."""
    try:
        fd = open_mount(mount)
    except OSError:
        return False
    if fd is None:
        return False
    try:
        ask_in_time(
            f"removal at {mount.paths[0]}",
            lambda _: os.unlink(_NO_NAME, dir_fd=fd),
            patience=patience,
        )
    except OSError as error:
        return isinstance(error, TimeoutError)
    finally:
        os.close(fd)
    return False


def _thaw_fully(mount: Mount) -> bool:
    """Thaw a filesystem as often as it was frozen; returns whether it was. Raises OSError if that
    is unknown."""
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
