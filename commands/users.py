"""Users who are logged in, and passwords.

utmp is read here, because psutil omits the microseconds. Where no program maintains it (Debian 13),
the sessions of systemd-logind are used.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from qga import Caller, CommandGroup, NotRequired, QgaError, command, decode_base64
from qga.programs.run import run
from qga.records import TypedDict

from ._sysfs import read_bytes, read_text

UTMP = "/var/run/utmp"
_USER_PROCESS = 7
# Where __WORDSIZE_TIME64_COMPAT32 of glibc's <bits/wordsize.h> is 0 and a long has 64 bits.
_WITH_LONG_TIMES = ("aarch64", "alpha", "ia64", "loongarch64", "s390x")

LOGIND_SESSIONS = "/run/systemd/sessions"
_SETTLED = 10**9  # nanoseconds, many ticks

_PASSWORD_TIMEOUT = 60.0  # seconds; PAM may ask a server


GuestUser = TypedDict("GuestUser", {"user": str, "login-time": float, "domain": NotRequired[str]})


def _layout(machine: str, is_64_bit: bool) -> struct.Struct:
    """struct utmp of glibc's <bits/utmp.h>: 384 bytes, or 400 with times of 64 bits.

    In the short one the seconds are unsigned, as in glibc 2.43. In 2.36 they end in 2038.
    """
    has_long_times = is_64_bit and machine.startswith(_WITH_LONG_TIMES)
    session_and_time = "qqq4i20x0q" if has_long_times else "iIi4i20x"
    return struct.Struct("hi32s4s32s256shh" + session_and_time)


_RECORD = _layout(os.uname().machine, sys.maxsize > 2**32)


class Users(CommandGroup):
    """Users."""

    @command(access="audit")
    def guest_get_users(self) -> list[GuestUser]:
        """List the users who are logged in.

        Each is listed once, with the earliest login in seconds since 1970-01-01 UTC, from utmp(5)
        or, if that has no users, from systemd-logind.
        """
        earliest: dict[str, float] = {}
        for user, login in _logins():
            earliest[user] = min(login, earliest.get(user, login))
        return [{"user": user, "login-time": login} for user, login in earliest.items()]

    @command(
        access="unrestricted",
        blocking=True,
        secret=("password",),
        verdict=lambda policy, given: policy.judge_account(given["username"]),
    )
    def guest_set_user_password(
        self, username: str, password: str, crypted: bool, *, caller: Caller
    ) -> None:
        """Set a user's password with chpasswd(8).

        username: the name of the account.
        password: the password, base64-encoded.
        crypted: whether the password is already hashed, as by crypt(3).
        """
        caller.policy.check_account(username)
        raw = decode_base64(password).split(b"\0", 1)[0]
        if b"\n" in raw:
            raise QgaError("forbidden characters in raw password")
        if any(character in username for character in ":\n\0"):
            raise QgaError("forbidden characters in username")
        argv = ["chpasswd", "-e"] if crypted else ["chpasswd"]
        failure = "child process has failed to set user password"
        try:
            ended = run(argv, _PASSWORD_TIMEOUT, username.encode() + b":" + raw + b"\n")
        except TimeoutError:
            raise QgaError(
                f"{failure}: chpasswd took longer than {_PASSWORD_TIMEOUT:.0f} s"
            ) from None
        except OSError as error:
            raise QgaError(f"{failure}: chpasswd: {error.strerror}") from error
        if ended.status:
            raise QgaError(f"{failure}: {ended.output}" if ended.output else failure)


def _logins() -> list[tuple[str, float]]:
    return list(_utmp_logins()) or _logind_sessions()


def _utmp_logins() -> Iterator[tuple[str, float]]:
    for record in utmp_records():
        seconds, microseconds = record[9:11]
        yield text_of(record[4]), seconds + microseconds / 1e6 if microseconds else seconds


def utmp_records() -> Iterator[tuple[Any, ...]]:
    """The fields of each record of a user: kind, process, line, ID, user, host, and more."""
    if not os.access(UTMP, os.R_OK):  # as on newer systems; faster than an exception
        return
    try:
        records = read_bytes(UTMP)
    except OSError:
        return
    for record in _RECORD.iter_unpack(records[: len(records) // _RECORD.size * _RECORD.size]):
        if record[0] == _USER_PROCESS:
            yield record


def _logind_sessions() -> list[tuple[str, float]]:
    """Sessions of users, from logind's state files, the oldest first.

    logind replaces files as a whole, so the modification time of the directory shows whether any
    has changed, except within the clock tick in which they were read.
    """
    try:
        changed = os.stat(LOGIND_SESSIONS).st_mtime_ns
    except OSError:
        return []
    if abs(time.time_ns() - changed) < _SETTLED:
        _sessions_of.cache_clear()
    return _sessions_of(changed)


@lru_cache(maxsize=1)
def _sessions_of(_changed: int) -> list[tuple[str, float]]:
    sessions = []
    for _, session in session_files():
        login = session.get("REALTIME", "")
        sessions.append((int(login) / 1e6 if login.isdecimal() else 0.0, session["USER"]))
    return [(user, login) for login, user in sorted(sessions)]


def session_files() -> Iterator[tuple[str, dict[str, str]]]:
    """The name of each session of a user, and its file. Raises OSError without logind."""
    for name in os.listdir(LOGIND_SESSIONS):
        if name.endswith(".ref"):  # a FIFO, which would block
            continue
        try:
            text = read_text(f"{LOGIND_SESSIONS}/{name}")
        except OSError:  # it has ended meanwhile
            continue
        session = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
        if _is_of_a_user(session):
            yield name, session


def _is_of_a_user(session: dict[str, str]) -> bool:
    """Whether a user is logged in there (sd_session_get_class(3)).

    There are variants of `user`, such as `user-early` (root's), and there may be more in the
    future. `user-incomplete` still waits for the home directory. In a closing session only
    left-over processes run.
    """
    kind, _, variety = session.get("CLASS", "").partition("-")
    is_over = session.get("STATE") == "closing"
    return kind == "user" and variety != "incomplete" and "USER" in session and not is_over


def text_of(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
