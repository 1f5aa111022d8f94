"""Opening files whose paths other users may change at any moment.

What must stay true: the file that was approved is the file that is opened. A path is resolved once,
to an O_PATH descriptor, which allows neither reading nor writing. The kernel reports the real path
of that descriptor, without `..` and symbolic links. After approval the file is opened through the
descriptor and never by its path again. Until then nothing is truncated, and no FIFO or device is
opened. A new file is created in the approved directory, and only if the name does not exist.

A real path is meaningful only in the agent's own mount namespace. A user can create a namespace and
mount anything anywhere in it, and /proc/PID/root and /proc/PID/fd lead there. So the descriptor's
mount must be one of the agent's own: no other mount has the same id while the descriptor is open.
With openat2(2), Linux 5.6 and later, the kernel does not follow such links at all.

In a directory such as /tmp, where everyone can create files but only remove their own, another user
may wait for data with a file or FIFO of the expected name. The rule of `fs.protected_regular=1` and
`fs.protected_fifos=1` (proc(5)) applies, which are not set on every system and need O_CREAT.

Real paths do not distinguish hard links: `fs.protected_hardlinks` (proc(5)) prevents users from
linking to files of others.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import cache
from typing import Any, Callable, Optional

from qga.records import NamedTuple
from qga.settings.trust import LONGEST_PATH, way
from qga.wire.payload import c_string

_NEW_FILE_MODE = 0o644
_TRIES = 16  # another user may keep removing and creating the file

_CREATING = os.O_TRUNC | os.O_APPEND

# Not for a path in /proc/self/fd, which is a link itself.
_BY_NAME = os.O_TRUNC | os.O_NOFOLLOW

_TRAPS = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFLNK)

_OPENAT2 = 437  # on all architectures of Linux that Python runs on, but for Alpha
_AT_FDCWD = -100  # <fcntl.h>
_RESOLVE_NO_MAGICLINKS = 0x02  # <linux/openat2.h>
# An older kernel, or a filter of system calls.
_NO_OPENAT2 = (
    *(errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL),
    *(errno.E2BIG, errno.EOPNOTSUPP, errno.EAGAIN),
)

Approve = Callable[[str], None]
"""Takes a real path and raises an exception to refuse it."""


class Elsewhere(OSError):
    """A loop of links, a link such as /proc/PID/exe, or a path into another mount namespace."""

    text = "the path has a loop of links, or leads to another mount namespace"

    def __init__(self) -> None:
        super().__init__(errno.ELOOP, self.text)


class Place(NamedTuple):
    """A resolved path.

    fd: an O_PATH descriptor of the file, or of its directory if the file is missing.
    path: the real path.
    name: the name of the missing file in its directory, or None.
    """

    fd: int
    path: str
    name: Optional[bytes]


def open_file(path: str, flags: int, follow_links: bool, approve: Approve | None = None) -> int:
    """Open a file and return its descriptor; a new file is created exclusively.

    flags: as for open(2), without O_CREAT, which O_TRUNC and O_APPEND imply as in fopen(3).
    follow_links: whether writing follows a symbolic link; reading always does.
    approve: called before anything is opened.
    Raises OSError, and whatever `approve` raises.
    """
    raw = c_string(path)
    if _writes(flags) and not follow_links:
        flags |= os.O_NOFOLLOW
    try:
        return _open(raw, flags) if approve is None else _open_approved(raw, flags, approve)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW and os.path.islink(raw):
            raise OSError(errno.ELOOP, _explain_link(raw)) from None
        raise


def without_dots(path: str) -> str:
    """The path without `..`, each of which removes the component before it.

    One that is too long stays as it is: its components would take gigabytes.
    """
    if len(path) > LONGEST_PATH or ".." not in path.split("/"):
        return path
    return os.path.normpath(path)


def probable_path(path: str) -> str:
    """Where a path that cannot be opened would lead; "" if it or its links are too long."""
    if len(path) > LONGEST_PATH:
        return ""
    try:
        *_, (real, _) = way(os.path.abspath(os.fsdecode(c_string(path))))
    except OSError:
        return ""
    return real


def find(raw: bytes, flags: int) -> Place:
    """Resolve a path; the caller closes the descriptor. Raises OSError."""
    try:
        fd = _walk(raw, flags & os.O_NOFOLLOW)
    except FileNotFoundError:
        directory, name = os.path.split(raw)
        if not _creates(flags) or not name:
            raise
        fd = _walk(directory or b".", os.O_DIRECTORY)
        try:
            return Place(fd, os.path.join(_real_path(fd), os.fsdecode(name)), name)
        except BaseException:
            os.close(fd)
            raise
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return Place(fd, _real_path(fd), None)
    except BaseException:
        os.close(fd)
        raise


def refuse_dangling_link(place: Place) -> None:
    """Raise FileNotFoundError if the missing file is a symbolic link, as opening it does."""
    if place.name is None:
        return
    try:
        is_link = stat.S_ISLNK(os.lstat(place.name, dir_fd=place.fd).st_mode)
    except OSError:  # it is missing
        return
    if is_link:
        raise _dangling()


def real_path(raw: bytes) -> str:
    """The real path of an existing file. Raises OSError."""
    place = find(raw, os.O_RDONLY)
    os.close(place.fd)
    return place.path


def _open(raw: bytes, flags: int) -> int:
    try:
        return _open_existing(raw, flags, raw)
    except (FileNotFoundError, NotADirectoryError):  # which is told otherwise of a file to create
        if not _creates(flags):
            raise
    try:
        # Without O_EXCL a dangling link would be followed and its target created.
        return os.open(raw, flags | os.O_CREAT | os.O_EXCL, _NEW_FILE_MODE)
    except FileExistsError:
        raise _dangling() from None


def _open_approved(raw: bytes, flags: int, approve: Approve) -> int:
    for _ in range(_TRIES):
        place = find(raw, flags)
        try:
            approve(place.path)
            if place.name is None:
                return _open_existing(raw, flags, f"/proc/self/fd/{place.fd}")
            create = flags | os.O_CREAT | os.O_EXCL
            return os.open(place.name, create, _NEW_FILE_MODE, dir_fd=place.fd)
        except FileExistsError:  # created meanwhile, or a dangling link
            continue
        finally:
            os.close(place.fd)
    raise _dangling()


def _open_existing(raw: bytes, flags: int, path: bytes | str) -> int:
    """Open the file `raw`, by `path`, and truncate it only if it is nobody's trap."""
    fd = os.open(path, flags & ~os.O_TRUNC if path is raw else flags & ~_BY_NAME)
    try:
        found = os.fstat(fd)
        if _creates(flags):
            _refuse_planted(raw, found, bool(flags & os.O_NOFOLLOW))
        if flags & os.O_TRUNC and stat.S_ISREG(found.st_mode):
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_planted(raw: bytes, found: os.stat_result, is_itself: bool) -> None:
    """Raise PermissionError if another user may have put the file, or a link to it, there."""
    if not is_itself and stat.S_ISLNK((link := os.lstat(raw)).st_mode):
        found = link
    around = os.stat(os.path.dirname(raw) or b".")
    shared = around.st_mode & stat.S_ISVTX and around.st_mode & stat.S_IWOTH
    foreign = found.st_uid not in (os.geteuid(), around.st_uid)
    if shared and foreign and stat.S_IFMT(found.st_mode) in _TRAPS:
        text = f"{os.strerror(errno.EACCES)}: another user's file in a world-writable directory"
        raise PermissionError(errno.EACCES, text)


def _walk(raw: bytes, flags: int) -> int:
    """An O_PATH descriptor of an existing file. Raises OSError."""
    flags |= os.O_PATH | os.O_CLOEXEC
    try:
        return _openat2(raw, flags)
    except OSError as error:
        if error.errno in _NO_OPENAT2:
            return os.open(raw, flags)
        if error.errno != errno.ELOOP:
            raise
        # The path is not resolved again to find the reason: a FUSE mount of a user may hang.
        raise Elsewhere from None


def _openat2(raw: bytes, flags: int) -> int:
    import ctypes

    how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_NO_MAGICLINKS)
    fd: int = _libc().syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_long(_AT_FDCWD),
        ctypes.c_char_p(raw),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _real_path(fd: int) -> str:
    """The current real path. Raises OSError for a file without a path, such as a pipe."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    # The kernel appends " (deleted)" to the path of a deleted file, which a pattern could match.
    if not path.startswith("/") or not os.fstat(fd).st_nlink:
        raise FileNotFoundError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}: the file has no path")
    if not _is_own_mount(fd):
        raise Elsewhere
    return path


def _is_own_mount(fd: int) -> bool:
    """Whether the descriptor's mount is in the agent's mount namespace."""
    mount = _mount_id(fd)
    with open("/proc/self/mountinfo", "rb") as file:
        if b"\n%d " % mount in b"\n" + file.read():
            return True
    root = os.open("/", os.O_PATH)  # not listed after chroot(2) to a directory below a mount point
    try:
        return mount == _mount_id(root)
    finally:
        os.close(root)


def _mount_id(fd: int) -> int:
    """From fdinfo (proc(5)): statx(2) reports it since Linux 5.8 only, and Python has no statx."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    raise Elsewhere


def _writes(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_RDONLY


def _creates(flags: int) -> bool:
    return _writes(flags) and bool(flags & _CREATING)


def _dangling() -> OSError:
    text = f"{os.strerror(errno.ENOENT)}: symbolic link to a missing file"
    return FileNotFoundError(errno.ENOENT, text)


def _explain_link(raw: bytes) -> str:
    try:
        target = os.fsdecode(os.readlink(raw))
    except OSError:
        target = "another file"
    return (
        f"{os.strerror(errno.ELOOP)}: symbolic link to '{target}'; writing does not follow links "
        "unless [files] follow-symlinks=true is set in the agent's configuration"
    )
