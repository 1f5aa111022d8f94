"""State that survives a restart of the agent: the file-handle counter and the frozen marker.

Both are files in the state directory, with the names and the format of QEMU's agent, so that either
agent can continue from the other.

What must stay true:

- A handle number is on disk before a client sees it. After a crash an old handle is then unknown,
  and never refers to another file.
- While the marker exists nothing is written, because the directory may be on a frozen filesystem.
- A file is replaced as a whole: if the disk is full, the old content remains.

The marker contains the ID of the boot, because a reboot thaws everything, and the time of the
automatic thaw. A marker without a boot, like that of QEMU's agent, or one that cannot be read, is
doubtful.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock

from qga.errors import QgaError
from qga.settings import keyfile
from qga.settings.trust import open_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_HANDLE = 1000
_MOST_DIGITS = 18  # a handle must fit an int64 on the wire
_MOST_BYTES = 64 * 1024  # enough for a state file, which has two lines


class StateError(Exception):
    """The state directory or the state file cannot be used; the text names the reason."""


def state_path(statedir: str) -> str:
    return f"{statedir}/qga.state"


def is_frozen(statedir: str) -> bool:
    """Whether there is a marker from an agent that has frozen filesystems since the last boot."""
    path = _marker_path(statedir)
    return os.path.exists(path) and _boot_of(path) in ("", _boot())


class State:
    """The state in one directory. Raises StateError if the directory cannot be used."""

    def __init__(self, statedir: str) -> None:
        self._path = state_path(statedir)
        self.marker = _marker_path(statedir)
        self._lock = allocate_lock()
        self._frozen = is_frozen(statedir)
        self._at_thaw: list[Callable[[], None]] = []
        if not os.path.isdir(statedir):
            raise StateError(f"state directory '{statedir}' does not exist or is not a directory")
        self._next_handle = self._load()

    @property
    def frozen(self) -> bool:
        """Whether the filesystems are frozen, according to the marker."""
        return self._frozen

    @property
    def doubtful(self) -> bool:
        """Whether there is a marker without the ID of a boot."""
        return self._frozen and not _boot_of(self.marker)

    def next_handle(self) -> int:
        """A new handle number. Raises QgaError if it cannot be saved."""
        with self._lock:
            handle = self._next_handle
            try:
                self._save(handle + 1)
            except OSError:
                raise QgaError("failed to commit persistent state to disk") from None
            self._next_handle = handle + 1
        return handle

    def mark_frozen(self, seconds: int = 0) -> None:
        """Create the marker, before the first filesystem is frozen. Raises OSError.

        seconds: after which to thaw automatically; 0 for never.
        """
        now = _uptime()
        thaw_at = f"thaw_at={now + seconds:.0f}\n" if seconds else ""
        text = f"[frozen]\nboot={_boot()}\nfrozen_at={now:.0f}\n{thaw_at}"
        _replace(self.marker, text, sync=True)
        self._frozen = True

    def seconds_to_thaw(self) -> float | None:
        """Seconds until the automatic thaw; None if the marker does not contain it."""
        thaw_at = self._moment("thaw_at")
        return None if thaw_at is None else max(0.0, thaw_at - _uptime())

    def seconds_frozen(self) -> float | None:
        """How long the filesystems have been frozen; None if the marker does not contain it."""
        frozen_at = self._moment("frozen_at")
        return None if frozen_at is None else max(0.0, _uptime() - frozen_at)

    def _moment(self, key: str) -> int | None:
        text = _read_marker(self.marker).get(key, "")
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
        return int(text) if is_number else None

    def clear_frozen(self) -> None:
        """Remove the marker and call what waits for the thaw. Raises OSError after that."""
        self._frozen = False
        try:
            os.unlink(self.marker)
        except FileNotFoundError:
            pass  # removed by an administrator after thawing by hand
        finally:
            waiting, self._at_thaw = self._at_thaw, []
            for callback in waiting:
                callback()

    def when_thawed(self, callback: Callable[[], None]) -> None:
        """Call `callback` now, or after the thaw if the filesystems are frozen."""
        if self._frozen:
            self._at_thaw.append(callback)
        else:
            callback()

    def _load(self) -> int:
        try:
            return _parse_counter(_read(self._path))
        except FileNotFoundError:
            return self._create()
        except (OSError, keyfile.KeyFileError) as error:
            raise StateError(
                f"error loading persistent state from path: {self._path}, {_reason(error)}"
            ) from None

    def _create(self) -> int:
        if not self._frozen:
            try:
                self._save(FIRST_HANDLE)
            except OSError as error:
                raise StateError(
                    f"unable to create state file at path {self._path}: {error.strerror}"
                ) from None
        return FIRST_HANDLE

    def _save(self, counter: int) -> None:
        _replace(self._path, f"[global]\nfd_counter={counter}\n")


def _replace(path: str, text: str, *, sync: bool = False) -> None:
    """Replace a file atomically. Raises OSError and leaves nothing behind.

    sync: whether to wait until it is on disk, so that disk errors are noticed.
    """
    unfinished = f"{path}.new"
    # By the umask, as QEMU's agent does: other users may see that the filesystems are frozen.
    fd = open_own(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(fd)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _marker_path(statedir: str) -> str:
    return f"{state_path(statedir)}.isfrozen"


def _read_marker(path: str) -> dict[str, str]:
    """The contents of the marker; nothing for that of QEMU's agent, which is empty."""
    try:
        group = keyfile.parse(_read(path)).get("frozen")
    except (OSError, keyfile.KeyFileError):
        return {}
    return {key: entry.raw for key, entry in group.entries.items()} if group else {}


def _boot_of(marker: str) -> str:
    """The ID of the boot in the marker; "" if it is missing or incomplete."""
    boot = _read_marker(marker).get("boot", "").strip()
    return boot if len(boot) == len(_boot()) else ""


def _read(path: str) -> str:
    """Read a file of the state directory, where others may be able to write. Raises OSError."""
    fd = open_own(path, os.O_RDONLY | os.O_NONBLOCK)  # it may be a FIFO
    with open(fd, "rb") as file:
        # After a power failure the file may consist of NULs.
        return file.read(_MOST_BYTES).partition(b"\0")[0].decode("utf-8", "replace")


def _uptime() -> float:
    """Seconds since the boot, including time spent suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    """The unique ID of this boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


def _parse_counter(text: str) -> int:
    group = keyfile.parse(text).get("global")
    entry = group.entries.get("fd_counter") if group else None
    if entry is None:
        return FIRST_HANDLE
    digits = entry.raw.strip()
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS
    return int(digits) if is_number else 0


def _reason(error: OSError | keyfile.KeyFileError) -> str:
    if isinstance(error, keyfile.KeyFileError):
        return f"line {error.line}: {error}; repair or remove the file"
    return error.strerror or str(error)
