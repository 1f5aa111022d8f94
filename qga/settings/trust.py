"""Trust in files: whatever the agent obeys or runs must be writable by root only.

A file is trusted if it and every directory on its path belong to root or the agent's user, and
nobody else can write to them. A sticky directory such as /tmp may be on the path: others can create
files there, but cannot replace those of root. An untrusted user then cannot replace anything after
the check, so there is no race between check and use. A symbolic link of another user in a sticky
directory is not trusted.

Files that the agent writes may be in a directory where others can write, such as a log in /tmp.
`open_own` opens them without following anything that others could have put there.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, EINVAL, ELOOP, EMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST_PATH = 4095  # PATH_MAX of <linux/limits.h>, without the NUL
_MAX_LINKS = 40  # the limit of the kernel (path_resolution(7))
_MAX_INTERPRETERS = 5  # scripts that are interpreters of others; the limit of the kernel
_FIRST_LINE = 256  # BINPRM_BUF_SIZE of <linux/binfmts.h>


class Untrusted(Exception):
    """Another user could have written the file; the text names the cause and the remedy."""


def require(path: str, owners: Iterable[int] = ()) -> str:
    """Raise Untrusted if anyone but root, the agent's user and `owners` can write to `path`.

    Returns the real path. Every directory on the path is checked, including those that symbolic
    links are in and lead to. Raises OSError if something is missing.
    """
    trusted = {0, os.geteuid(), *owners}
    # Not abspath, which drops the directory before `..` even if that is a symbolic link.
    *steps, (real, _) = way(os.path.join(os.getcwd(), path))
    _require_one(real, trusted, allow_sticky=False)
    for folder, link in dict.fromkeys(steps):
        _require_one(folder, trusted, allow_sticky=True)
        _require_link(folder, link, trusted)
    return real


def require_program(path: str, owners: Iterable[int] = ()) -> str:
    """As `require`, for a program: whoever can write its interpreter can replace it as well."""
    real = require(path, owners)
    program = real
    for _ in range(_MAX_INTERPRETERS):
        try:
            interpreter = interpreter_in(first_line(program))
        except PermissionError:  # no script, which its interpreter could not read either
            break
        if not interpreter:
            break
        program = require(interpreter, owners)
    return real


def first_line(program: str) -> bytes:
    """As far as the kernel looks at it (execve(2)), of a regular file. Raises OSError.

    Its owner may replace it at any moment, with a link to a device, which only root may open.
    """
    file = os.open(program, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        fd = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    finally:
        os.close(file)
    try:
        return os.read(fd, _FIRST_LINE).partition(b"\n")[0]
    finally:
        os.close(fd)


def interpreter_in(line: bytes) -> str | None:
    """The interpreter that the first line of a script names; None if it is not a script."""
    if not line.startswith(b"#!"):
        return None
    words = line[2:].partition(b"\0")[0].replace(b"\t", b" ").split(b" ")
    return os.fsdecode(next(filter(None, words), b""))


def open_own(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a file of the agent by its absolute path; `flags` and `mode` as for open(2).

    In a directory where others can write, symbolic links are not followed, files with further hard
    links are refused, and opening never waits for a FIFO. Where everyone can write, files of other
    users are refused: whoever made them could read what is logged, and change the state. Raises
    OSError.
    """
    trusted = {0, os.geteuid()}
    folder, name = os.path.split(path)
    try:
        for each, link in way(folder):
            _require_link(each, link, trusted)
    except Untrusted as error:
        raise OSError(ELOOP, str(error)) from None
    # The file is opened below the directory that was checked, even if that is renamed meanwhile.
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        of_folder = os.fstat(folder_fd)
        if not _others_may_write(of_folder, trusted):
            # "." for a path that ends with a slash: that it is a directory should be told.
            return os.open(name or ".", flags, mode, dir_fd=folder_fd)
        # Truncated only after the check: it may be the file of another user.
        warily = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(name, warily, mode, dir_fd=folder_fd)
    except OSError as error:
        if error.errno != ELOOP:
            raise
        raise OSError(ELOOP, f"symbolic link in {folder}, where others can write") from None
    finally:
        os.close(folder_fd)
    try:
        _require_own(os.fstat(fd), folder, of_folder, trusted)
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
        # O_NONBLOCK was only to keep open(2) from waiting for a FIFO.
        os.set_blocking(fd, not flags & os.O_NONBLOCK)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_own(
    status: os.stat_result, folder: str, of_folder: os.stat_result, trusted: set[int]
) -> None:
    """Raise OSError for anything that another user may have put into a shared directory."""
    is_foreign = status.st_uid not in trusted
    if is_foreign and not stat.S_ISREG(status.st_mode):
        raise OSError(EINVAL, f"not a regular file, and others can write to {folder}")
    # As with fs.protected_regular=1 (proc(5)), which is about creating files only. Not where a
    # group can write: on Ubuntu logrotate may give logs in /var/log to the user syslog.
    if is_foreign and of_folder.st_mode & stat.S_IWOTH and status.st_uid != of_folder.st_uid:
        owner = f"owned by uid {status.st_uid}"
        raise OSError(EACCES, f"it is {owner}, and everyone can write to {folder}; remove it")
    # With fs.protected_hardlinks=0 others can link to any file of root (proc(5)).
    if status.st_nlink > 1:
        raise OSError(EMLINK, f"it has further hard links, and others can write to {folder}")


def way(path: str) -> Iterator[tuple[str, str]]:
    """The directories that resolving an absolute path reads, each with the link read there, or "".

    The last one is what the path leads to.
    """
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
    """Raise Untrusted for a link made by another user in a directory where others can write."""
    if link and _others_may_write(os.stat(folder), trusted):
        owner = os.lstat(link).st_uid
        if owner not in trusted:
            raise Untrusted(
                f"{link} is a symbolic link owned by uid {owner}; it must be owned by root"
            )


def _others_may_write(status: os.stat_result, trusted: set[int]) -> bool:
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return bool(writable) or status.st_uid not in trusted


def _require_one(path: str, trusted: set[int], allow_sticky: bool) -> None:
    status = os.stat(path)
    if status.st_uid not in trusted:
        raise Untrusted(f"{path} must be owned by root, not by uid {status.st_uid}")
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable and not (allow_sticky and status.st_mode & stat.S_ISVTX):
        mode = stat.S_IMODE(status.st_mode)
        raise Untrusted(f"{path} is writable by others (mode {mode:04o}); chmod go-w it")
