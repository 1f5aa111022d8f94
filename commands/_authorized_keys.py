"""Reads or changes ~/.ssh/authorized_keys with the user's own rights: a program of its own.

    python3 -ISXutf8 _authorized_keys.py get|add|reset|remove USER HOME < KEYS

KEYS are lines. `get` prints the keys, last one first as the original has them. What goes wrong
is printed, and the exit status is 1.
"""

from __future__ import annotations

import os
import sys


def main(action: str, user: str, home: str) -> None:
    keys = lines_of(sys.stdin.buffer.read())[:-1]
    become(user)
    folder = f"{home}/.ssh"
    path = f"{folder}/authorized_keys"
    if action == "get":
        trimmed = (line.strip() for line in reversed(read(path)))
        told = [f"{line}\n" for line in trimmed if line and not line.startswith("#")]
        sys.stdout.buffer.write("".join(told).encode("utf-8", "surrogateescape"))
    elif action == "remove":
        if exists(path):
            replace(path, [line for line in read(path) if line not in keys])
    else:
        make_folder(folder)
        lines = read(path) if action == "add" and exists(path) else []
        replace(path, lines + [key for key in dict.fromkeys(keys) if key not in lines])


def become(user: str) -> None:
    """Take on the user's identity for good."""
    from pwd import getpwnam

    account = getpwnam(user)
    if os.geteuid() == 0:
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.umask(0o077)


def make_folder(folder: str) -> None:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        sys.exit(f"failed to create directory '{folder}': {error.strerror}")


def exists(path: str) -> bool:
    """Whether there is a file, even if it may not be seen."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def read(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            return lines_of(file.read())
    except IsADirectoryError as error:
        reason = f"Error reading file \u201c{path}\u201d: {error.strerror}"
    except OSError as error:
        reason = f"Failed to open file \u201c{path}\u201d: {error.strerror}"
    sys.exit(f"failed to read '{path}': {reason}")


def lines_of(content: bytes) -> list[str]:
    return content.decode("utf-8", "surrogateescape").split("\n")


def replace(path: str, lines: list[str]) -> None:
    """Write the file anew and put it in the place of the old one, be that a symbolic link."""
    unfinished = f"{path}.qga-{os.getpid()}"
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write("\n".join(lines))
        os.replace(unfinished, path)
    except OSError as error:
        sys.exit(f"failed to write '{path}': {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
