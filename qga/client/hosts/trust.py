"""Which users of this host are trusted to run a guest of a certain name.

Any user can start a program that looks like a QEMU called `web`, or create a socket with that name
in its path, and would then receive a password meant for web. What must stay true: a name leads only
to processes and files of root, of the user who asks, or of the account that libvirt runs QEMU under
(Proxmox VE runs it as root). Everything else is left out, and so is whatever this user may not
read. `LeftOut` summarizes what was left out in a few lines.
"""

from __future__ import annotations

import os
import pwd
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Belongs to libvirt's QEMU account: libvirt sets the owner at each start, and only root can create
# it.
LIBVIRT_STATE = "var/lib/libvirt/qemu"

# Users without a number in our user namespace appear as this one (/proc/sys/kernel/overflowuid).
NOBODY = 65534

# How many things are named for each reason, and how many characters of each.
MOST_NAMED = 3
LONGEST_TEXT = 200


class LeftOut:
    """What was left out while looking for guests, by reason."""

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
        """Yield each reason with a line that names the first things left out for it."""
        for reason, named in self._named.items():
            more = self._counts[reason] - len(named)
            rest = f" and {more} more" if more else ""
            yield reason, f"left out ({reason}): {', '.join(named)}{rest}"

    def lines(self) -> list[str]:
        return [line for _, line in self]


def believed_users(root: Path) -> frozenset[int]:
    """The user ids that are trusted on the host whose / is at `root`."""
    users = {0, os.geteuid()}
    with suppress(OSError):
        users.add(os.stat(root / LIBVIRT_STATE).st_uid)
    return frozenset(users - {NOBODY})


def owners(path: str | Path) -> set[int]:
    """The owner of a file, and of the link that leads to it, if any. Raises OSError."""
    return {os.lstat(path).st_uid, os.stat(path).st_uid}


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def user_names(uids: set[int]) -> str:
    return ", ".join(map(user_name, sorted(uids)))
