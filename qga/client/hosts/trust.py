"""Who on this host is believed when a process or a socket says which guest it belongs to.

Any user can start a program that looks like a QEMU called `web`, or make a socket with that name
in its path, and a password for web would go there. What must stay true: a name leads only to what
belongs to root, to the user who asks, or to the account that libvirt runs QEMU under (Proxmox runs
it as root). Everything else is left out, and so is what this user may not read; `LeftOut` keeps
what that was, in a few lines however much it is.
"""

from __future__ import annotations

import os
import pwd
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# libvirt gives this directory to its QEMU account whenever it starts; only root can make one there.
LIBVIRT_STATE = "var/lib/libvirt/qemu"

# Who has no number in our user namespace appears as this one (/proc/sys/kernel/overflowuid).
NOBODY = 65534

# How many things are named for each reason, and how much of each.
MOST_NAMED = 3
LONGEST_TEXT = 200


class LeftOut:
    """What a look at a host left out, by the reason for it."""

    def __init__(self) -> None:
        self._named: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, reason: str, thing: str) -> None:
        named = self._named.setdefault(reason, [])
        self._counts[reason] += 1
        if len(named) < MOST_NAMED:
            named.append(thing[:LONGEST_TEXT])

    def unreadable(self, path: object, error: OSError) -> None:
        self.add(f"cannot be read: {error.strerror}", str(path))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each reason, and a line that names it and the first things that were left out for it."""
        for reason, named in self._named.items():
            more = self._counts[reason] - len(named)
            rest = f" and {more} more" if more else ""
            yield reason, f"left out ({reason}): {', '.join(named)}{rest}"

    def lines(self) -> list[str]:
        return [line for _, line in self]


def believed_users(root: Path) -> frozenset[int]:
    """The user ids that are believed on the host whose / is at `root`."""
    users = {0, os.geteuid()}
    with suppress(OSError):
        users.add(os.stat(root / LIBVIRT_STATE).st_uid)
    return frozenset(users - {NOBODY})


def owners(path: str | Path) -> set[int]:
    """Whose a file is, and if it is reached by a link, whose that is. Raises OSError."""
    return {os.lstat(path).st_uid, os.stat(path).st_uid}


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def user_names(uids: set[int]) -> str:
    return ", ".join(map(user_name, sorted(uids)))
