"""Opening files by paths that somebody else may change at any moment.

What must stay true: what was approved is what is opened. So a path is walked once, to a
descriptor that nothing can be read from or written to yet (O_PATH); the kernel tells the real path
of that descriptor, without `..` and symbolic links; and after it was approved the file is opened
through the descriptor and never by its path again. Before that nothing is truncated, and no FIFO
or device notices. A new file is made in the folder that was approved, and only where there is
nothing of that name.

Real paths cannot tell hard links apart: `fs.protected_hardlinks` (proc(5)) keeps users from making
one of a file that is not theirs.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable, NamedTuple, Optional

from qga.payload import c_string

_NEW_FILE_MODE = 0o644
_TRIES = 16  # at a path that somebody takes away and puts back

_CREATING = os.O_TRUNC | os.O_APPEND

Approve = Callable[[str], None]
"""Takes a real path, and raises what is wrong with it."""


class Place(NamedTuple):
    """Where a path leads.

    fd: O_PATH descriptor of the file, or of its folder when the file is missing.
    path: the real path.
    name: of the missing file in its folder.
    """

    fd: int
    path: str
    name: Optional[bytes]


def open_file(path: str, flags: int, follow_links: bool, approve: Approve | None = None) -> int:
    """A descriptor; where a mode of fopen(3) may create, a file is created exclusively.

    flags: of open(2), without O_CREAT.
    follow_links: whether to write to what a symbolic link leads to; reading always does.
    approve: asked before anything is opened.
    Raises OSError, and what `approve` raises.
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


def find(raw: bytes, flags: int) -> Place:
    """Where a path leads; the descriptor is the caller's. Raises OSError."""
    try:
        fd = os.open(raw, os.O_PATH | flags & os.O_NOFOLLOW)
    except FileNotFoundError:
        folder, name = os.path.split(raw)
        if not _creates(flags) or not name:
            raise
        fd = os.open(folder or b".", os.O_PATH | os.O_DIRECTORY)
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


def _open(raw: bytes, flags: int) -> int:
    try:
        return os.open(raw, flags)
    except FileNotFoundError:
        if not _creates(flags):
            raise
    try:
        return os.open(raw, flags | os.O_CREAT | os.O_EXCL, _NEW_FILE_MODE)
    except FileExistsError:
        raise _dangling() from None


def _open_approved(raw: bytes, flags: int, approve: Approve) -> int:
    for _ in range(_TRIES):
        place = find(raw, flags)
        try:
            approve(place.path)
            if place.name is None:
                return os.open(f"/proc/self/fd/{place.fd}", flags & ~os.O_NOFOLLOW)
            create = flags | os.O_CREAT | os.O_EXCL
            return os.open(place.name, create, _NEW_FILE_MODE, dir_fd=place.fd)
        except FileExistsError:  # made since, or a link to nowhere
            continue
        finally:
            os.close(place.fd)
    raise _dangling()


def _real_path(fd: int) -> str:
    """As the kernel sees it now. Raises OSError for what has no path, such as a pipe."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if not path.startswith("/") or not os.fstat(fd).st_nlink:
        raise FileNotFoundError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}: it has no path")
    return path


def _writes(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_RDONLY


def _creates(flags: int) -> bool:
    return _writes(flags) and bool(flags & _CREATING)


def _dangling() -> OSError:
    text = f"{os.strerror(errno.ENOENT)}: it is a symbolic link to a missing file"
    return FileNotFoundError(errno.ENOENT, text)


def _explain_link(raw: bytes) -> str:
    try:
        target = os.fsdecode(os.readlink(raw))
    except OSError:
        target = "another file"
    return (
        f"{os.strerror(errno.ELOOP)}: it is a symbolic link to '{target}', and writing follows "
        "none unless the agent's configuration has follow-symlinks=true in [files]"
    )
