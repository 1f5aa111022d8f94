"""Reads or changes ~/.ssh/authorized_keys with the user's own rights: a program of its own.

    python3 -ISXutf8 _authorized_keys.py get|add|reset|remove USER HOME < KEYS

KEYS are lines. `get` prints the keys, the last one first, as QEMU's agent does. Errors are printed,
and the exit status is then 1.

What must stay true: users may make the file anything, such as a link to /dev/zero or a FIFO, and
replace it at any moment. So every step is taken as the user. The file is opened without waiting and
checked through its descriptor. At most MAX_FILE bytes are read; a larger file is an error and never
truncated. The last line gets a newline, so that lines that others append stay separate.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from errno import ELOOP, ENOENT, ENOTDIR

MAX_FILE = 16 * 1024 * 1024
MAX_LINES = 100_000
BLANKS = " \t\n\f\r"
"""What QEMU's agent leaves out around a key; Python's strip() knows more."""


def main(action: str, user: str, home: str) -> None:
    keys = lines_of(sys.stdin.buffer.read())
    become(user)
    directory = os.path.join(home, ".ssh")
    path = f"{directory}/authorized_keys"
    if action == "get":
        trimmed = (line.strip(BLANKS) for line in reversed(read(path)))
        listed = [f"{line}\n" for line in trimmed if line and not line.startswith("#")]
        sys.stdout.buffer.write("".join(listed).encode("utf-8", "surrogateescape"))
    elif action == "remove":
        if exists(path):
            unwanted = set(keys)
            replace(path, [line for line in read(path) if line not in unwanted])
    else:
        make_directory(directory)
        lines = read(path) if action == "add" and exists(path) else []
        present = set(lines)
        replace(path, lines + [key for key in dict.fromkeys(keys) if key not in present])


def become(user: str) -> None:
    """Take on the user's identity for good."""
    from pwd import getpwnam

    account = getpwnam(user)
    if os.geteuid() == 0:
        try:
            failure = "failed to set group"
            os.initgroups(user, account.pw_gid)
            os.setgid(account.pw_gid)
            failure = "failed to set effective user ID"
            os.setuid(account.pw_uid)
        except OSError as error:  # the agent may lack the capability
            sys.exit(f"{failure} for user '{user}': {error.strerror}")
    os.umask(0o077)


def make_directory(directory: str) -> None:
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:
        failure = error
    else:
        return
    if isinstance(failure, FileExistsError):
        try:
            if stat.S_ISDIR(os.stat(directory).st_mode):
                return
        except PermissionError as error:  # a link to where the user cannot look
            failure = error
        except OSError:
            pass
    sys.exit(f"failed to create directory '{directory}': {failure.strerror}")


def exists(path: str) -> bool:
    """Whether the path leads to a file, or may do so where the user cannot look."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno not in (ENOENT, ENOTDIR, ELOOP)
    return True


def read(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with open(fd, "rb") as file:
            wrong = fault_of(os.fstat(fd))
            content = b"" if wrong else file.read(MAX_FILE + 1)
    except IsADirectoryError as error:
        reason = f"Error reading file \u201c{path}\u201d: {error.strerror}"
    except OSError as error:
        reason = f"Failed to open file \u201c{path}\u201d: {error.strerror}"
    else:
        # Some files in procfs and FUSE are longer than their size.
        reason = wrong or fault_of_size(len(content), content.count(b"\n"))
        if b"\0" in content:
            reason = "it is not a text file"
        if not reason:
            return lines_of(content)
    sys.exit(f"failed to read '{path}': {reason}")


def fault_of(status: os.stat_result) -> str:
    """Why the file cannot be used; "" if it can."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid not in (os.geteuid(), 0):  # as sshd does
        return f"it is owned by uid {status.st_uid}"
    return fault_of_size(status.st_size, 0)


def fault_of_size(size: int, lines: int) -> str:
    if size > MAX_FILE:
        return f"it is larger than {MAX_FILE // 1024**2} MiB"
    return f"it has more than {MAX_LINES} lines" if lines > MAX_LINES else ""


def lines_of(content: bytes) -> list[str]:
    """The lines. The last one may lack its newline."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    return lines if lines[-1] else lines[:-1]


def replace(path: str, lines: list[str]) -> None:
    """Write a new file and replace the old one, even if that is a symbolic link.

    Errors are worded as in GLib, which QEMU's agent uses.
    """
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    unfinished = f"{path}.qga-{os.getpid()}"
    new, old = f"\u201c{unfinished}\u201d", f"\u201c{path}\u201d"
    failure = fault_of_size(len(content), len(lines))
    if failure:
        sys.exit(f"failed to write to '{path}': {failure}")
    try:
        failure = f"Failed to create file {new}"
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        failure = f"Failed to write file {new}: write() failed"
        with open(fd, "wb") as file:
            file.write(content)
        failure = f"Failed to rename file {new} to {old}: g_rename() failed"
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(unfinished)
        sys.exit(f"failed to write to '{path}': {failure}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
