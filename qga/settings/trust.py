"""Who could have written a file: what the agent obeys or runs must be root's alone.

A file is trusted when it, and every folder on the way to it, belongs to root or to the agent's
own user and nobody else may write there. In a sticky folder such as /tmp others may make files,
but not replace those of root, so that it may be on the way. Nobody untrusted can then replace what
was checked, which leaves no race between the check and the use. A symbolic link of theirs in such
a folder leads where they like, and is no part of a trusted way.

What the agent itself writes may lie where others may write, too, such as a log in /tmp. There it is
opened by `open_own`, which follows nothing that they could have put in its place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from errno import EINVAL, ELOOP, EMLINK

_MAX_LINKS = 40  # as in the kernel (path_resolution(7))


class Untrusted(Exception):
    """Somebody else could have written the file; the text says how, and what would be right."""


def require(path: str, owners: Iterable[int] = ()) -> str:
    """Raise Untrusted when others than root, the agent's user and `owners` may write `path`.

    Returns the real path. All that is on the way counts, where symbolic links lie and where they
    lead to. Raises OSError where something is missing.
    """
    trusted = {0, os.geteuid(), *owners}
    *steps, (real, _) = _way(os.path.join(os.getcwd(), path))
    _require_one(real, trusted, sticky_will_do=False)
    for folder, link in dict.fromkeys(steps):
        _require_one(folder, trusted, sticky_will_do=True)
        _require_link(folder, link, trusted)
    return real


def open_own(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a file that the agent keeps, by its full path; `flags` and `mode` as of open(2).

    Where others than root and the agent's user may write, no link is followed: no symbolic one,
    and no file that has another name elsewhere is opened; nor is a FIFO of theirs waited for.
    Raises OSError.
    """
    trusted = {0, os.geteuid()}
    folder, name = os.path.split(path)
    try:
        for each, link in _way(folder):
            _require_link(each, link, trusted)
    except Untrusted as error:
        raise OSError(ELOOP, str(error)) from None
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        if not _others_may_write(os.fstat(folder_fd), trusted):
            return os.open(name, flags, mode, dir_fd=folder_fd)
        warily = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(name, warily, mode, dir_fd=folder_fd)
    except OSError as error:
        if error.errno != ELOOP:
            raise
        raise OSError(ELOOP, f"it is a symbolic link, and others may write in {folder}") from None
    finally:
        os.close(folder_fd)
    try:
        _require_own(os.fstat(fd), folder, trusted)
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
        os.set_blocking(fd, not flags & os.O_NONBLOCK)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_own(status: os.stat_result, folder: str, trusted: set[int]) -> None:
    """Raise OSError for what somebody else may have put into a folder where others may write."""
    if not stat.S_ISREG(status.st_mode) and status.st_uid not in trusted:
        raise OSError(EINVAL, f"it is no regular file, and others may write in {folder}")
    if status.st_nlink > 1:
        raise OSError(EMLINK, f"it has another name, and others may write in {folder}")


def _way(path: str) -> Iterator[tuple[str, str]]:
    """The folders that following a full path reads, each with the link that was read there, or "";
    and last what it leads to."""
    here, links = "/", 0
    rest = path.split("/")[::-1]
    while rest:
        step = rest.pop()
        if step == "..":
            here = os.path.dirname(here)
        if step in ("", ".", ".."):
            continue
        there = os.path.join(here, step)
        if not os.path.islink(there):
            yield here, ""
            here = there
            continue
        yield here, there
        links += 1
        if links > _MAX_LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP))
        target = os.readlink(there)
        rest += target.split("/")[::-1]
        if target.startswith("/"):
            here = "/"
    yield here, ""


def _require_link(folder: str, link: str, trusted: set[int]) -> None:
    """Raise Untrusted for a link that somebody else has made where others may write."""
    if link and _others_may_write(os.stat(folder), trusted):
        owner = os.lstat(link).st_uid
        if owner not in trusted:
            raise Untrusted(f"{link} is a link of uid {owner}; it must belong to root")


def _others_may_write(status: os.stat_result, trusted: set[int]) -> bool:
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return bool(writable) or status.st_uid not in trusted


def _require_one(path: str, trusted: set[int], sticky_will_do: bool) -> None:
    status = os.stat(path)
    if status.st_uid not in trusted:
        raise Untrusted(f"{path} belongs to uid {status.st_uid}; it must belong to root")
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable and not (sticky_will_do and status.st_mode & stat.S_ISVTX):
        mode = stat.S_IMODE(status.st_mode)
        raise Untrusted(f"{path} is writable by others (mode {mode:04o}); chmod go-w it")
