"""Users and groups of the guest, as its name service reports them (nsswitch.conf(5)).

A name service may query a server that does not answer, so use a worker thread. CPython releases the
GIL in `pwd` and `grp`, but not in os.getgrouplist, which would block the loop as well.
"""

from __future__ import annotations

import grp
import os
import pwd
from functools import cache
from typing import Any

from qga.records import NamedTuple

_USUAL_GROUPS = 64
_MOST_GROUPS = 65536  # NGROUPS_MAX of Linux
_MOST_DIGITS = 10  # of a number of 32 bits
_NO_ID = 2**32 - 1  # chown(2)


class Identity(NamedTuple):
    """The IDs of a process that runs as a user."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def find_user(user: str, group: int | None = None) -> pwd.struct_passwd:
    """The entry of a user, by name or number. Raises KeyError if there is none.

    With a group, a number needs no entry: the home directory is then `/`.
    """
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError, UnicodeError):
        number = _number(user)
    try:
        return pwd.getpwuid(number)
    except KeyError:
        if group is None:
            raise
    return pwd.struct_passwd((user, "x", number, group, "", "/", ""))


def find_group(group: str) -> int:
    """The ID of a group, by name or number. Raises KeyError if it is neither."""
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError, UnicodeError):
        return _number(group)


def identity_of(account: pwd.struct_passwd, group: int | None) -> Identity:
    """The IDs of a user, with all its groups; `group` replaces its primary group."""
    gid = account.pw_gid if group is None else group
    return Identity(account.pw_uid, gid, _groups_of(os.fsencode(account.pw_name), gid))


def _number(text: str) -> int:
    # int() takes a quadratic time for what is longer, or refuses it.
    if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) < _NO_ID:
        return int(text)
    raise KeyError(text)


def _groups_of(name: bytes, gid: int) -> tuple[int, ...]:
    """Call getgrouplist(3), which returns -1 and the number of groups if there are more."""
    from ctypes import byref, c_int, c_uint

    room = _USUAL_GROUPS
    while True:
        groups, count = (c_uint * room)(), c_int(room)
        if _libc().getgrouplist(name, c_uint(gid), groups, byref(count)) >= 0:
            return tuple(groups[: count.value])
        room = max(count.value, 2 * room)
        if room > 2 * _MOST_GROUPS:
            raise OSError(f"the user {os.fsdecode(name)} is in too many groups")


@cache
def _libc() -> Any:
    from ctypes import CDLL

    return CDLL(None)
