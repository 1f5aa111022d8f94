"""Events for users who log in and out.

The sources are the state files of systemd-logind (in the directory that sd-login(3) watches), or
without logind utmp(5). inotify(7) reports changes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qga.records import NamedTuple

from . import users

if TYPE_CHECKING:
    from typing import Any, Callable

    from qga.loop import Loop

    Tell = Callable[..., None]

# <sys/inotify.h>
_MODIFY, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
_ENTRIES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE

_LOGIND = os.path.dirname(users.LOGIND_SESSIONS)
_READ_SIZE = 64 * 1024
_MOST_FIELD = 256  # characters of a member


class Session(NamedTuple):
    """A login. user, terminal, remote_host: "" if unknown."""

    user: str
    terminal: str
    remote_host: str


class Sessions:
    """Calls `tell` with session-opened and session-closed. Raises OSError."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._libc = _libc()
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError("inotify(7): too many are in use")
        self._known = self._look()
        if not os.path.isdir(_LOGIND) and not os.path.exists(users.UTMP):
            os.close(self._fd)
            raise FileNotFoundError(2, "the guest has neither systemd-logind nor utmp")

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        loop.watch(self._fd, self._on_change)

    def close(self) -> None:
        self._loop.unwatch(self._fd)
        os.close(self._fd)

    def _on_change(self, _events: int) -> None:
        os.read(self._fd, _READ_SIZE)  # it does not matter which file has changed
        known, self._known = self._known, self._look()
        for key, session in known.items():
            if self._known.get(key) != session:
                self._tell("session-closed", **_described(session))
        for key, session in self._known.items():
            if known.get(key) != session:
                self._tell("session-opened", **_described(session))

    def _look(self) -> dict[str, Session]:
        """The current sessions. Later changes are reported."""
        # logind creates its directory when it starts, possibly after the agent.
        places = {_LOGIND: _CREATE, users.LOGIND_SESSIONS: _ENTRIES, users.UTMP: _MODIFY}
        for path, mask in places.items():  # missing ones are skipped
            self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        try:
            return logind_sessions()
        except OSError:
            return utmp_sessions()


def _libc() -> Any:
    try:
        from ctypes import CDLL
    except (ImportError, MemoryError) as error:  # an old libffi, if W^X is enforced
        raise OSError(f"ctypes cannot be loaded: {error}") from error
    return CDLL(None)


def logind_sessions() -> dict[str, Session]:
    """Sessions of users, by logind's names of the sessions. Raises OSError without logind."""
    return {
        name: Session(file["USER"], file.get("TTY", ""), file.get("REMOTE_HOST", ""))
        for name, file in users.session_files()
    }


def utmp_sessions() -> dict[str, Session]:
    """Logins in utmp(5) by process and terminal."""
    found = {}
    for _kind, process, *fields in users.utmp_records():
        line, _id, user, host = map(users.text_of, fields[:4])
        found[f"{process} {line}"] = Session(user, line, host)
    return found


def _described(session: Session) -> dict[str, Any]:
    named = {
        "user": session.user,
        "terminal": session.terminal,
        "remote-host": session.remote_host,
    }
    return {name: text[:_MOST_FIELD] for name, text in named.items() if text}
