"""Who could have written a file: what the agent obeys or runs must be root's alone.

A file is trusted when it, and every folder on the way to it, belongs to root or to the agent's
own user and nobody else may write there. In a sticky folder such as /tmp others may make files,
but not replace those of root, so that it may be on the way. Nobody untrusted can then replace what
was checked, which leaves no race between the check and the use.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from errno import ELOOP

_MAX_LINKS = 40  # as in the kernel (path_resolution(7))


class Untrusted(Exception):
    """Somebody else could have written the file; the text says how, and what would be right."""


def require(path: str, owners: Iterable[int] = ()) -> str:
    """Raise Untrusted when others than root, the agent's user and `owners` may write `path`.

    Returns the real path. All that is on the way counts, where symbolic links lie and where they
    lead to. Raises OSError where something is missing.
    """
    trusted = {0, os.geteuid(), *owners}
    *folders, real = _way(os.path.join(os.getcwd(), path))
    _require_one(real, trusted, sticky_will_do=False)
    for folder in dict.fromkeys(folders):
        _require_one(folder, trusted, sticky_will_do=True)
    return real


def _way(path: str) -> Iterator[str]:
    """The folders that following a full path reads, and last what it leads to."""
    here, links = "/", 0
    rest = path.split("/")[::-1]
    while rest:
        step = rest.pop()
        if step == "..":
            here = os.path.dirname(here)
        if step in ("", ".", ".."):
            continue
        yield here
        there = os.path.join(here, step)
        if not os.path.islink(there):
            here = there
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP))
        target = os.readlink(there)
        rest += target.split("/")[::-1]
        if target.startswith("/"):
            here = "/"
    yield here


def _require_one(path: str, trusted: set[int], sticky_will_do: bool) -> None:
    status = os.stat(path)
    if status.st_uid not in trusted:
        raise Untrusted(f"{path} belongs to uid {status.st_uid}; it must belong to root")
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable and not (sticky_will_do and status.st_mode & stat.S_ISVTX):
        mode = stat.S_IMODE(status.st_mode)
        raise Untrusted(f"{path} is writable by others (mode {mode:04o}); chmod go-w it")
