"""Starting a program, by posix_spawn(3): no copy of the agent's memory is made.

A child has its own session, default signal dispositions, and no descriptors but the three
standard ones.
"""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Mapping
from errno import EACCES, ENOENT, ENOEXEC, ENOTDIR

from qga.payload import c_string

_DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_OF_THE_SERVICE = frozenset(
    b"INVOCATION_ID JOURNAL_STREAM LISTEN_FDNAMES LISTEN_FDS LISTEN_PID MANAGERPID "
    b"NOTIFY_SOCKET SYSTEMD_EXEC_PID WATCHDOG_PID WATCHDOG_USEC".split()
)  # what a service manager tells the agent and nobody else

_IGNORED_BY_PYTHON = [signal.SIGPIPE, signal.SIGXFSZ]


def spawn(argv: list[str], environment: list[str] | None, streams: Mapping[int, int]) -> int:
    """Start a program and return its process id; OSError when it cannot be started.

    argv: its name or path, and its arguments. A name without `/` is searched for in the PATH
        of its environment. A file that the kernel cannot run is run by /bin/sh, as by
        execvp(3).
    environment: `NAME=value` each, of which the first of two with one name counts; None for
        the agent's own.
    streams: our descriptor for its 0, 1 or 2; /dev/null where there is none.
    """
    variables = own_environment() if environment is None else _parse(environment)
    arguments = [c_string(argument) for argument in argv]
    error = FileNotFoundError(ENOENT, os.strerror(ENOENT))
    for path in _candidates(arguments[0], variables.get(b"PATH", _DEFAULT_PATH)):
        try:
            return _spawn_file(path, arguments, variables, streams)
        except OSError as failure:
            if failure.errno not in (ENOENT, ENOTDIR, EACCES):
                raise
            if failure.errno == EACCES:  # said only when no later one can be run
                error = failure  # type: ignore[assignment]
    raise error


def own_environment() -> dict[bytes, bytes]:
    """The agent's environment as its children have it.

    Without what is between the agent and its service manager; with HOME, USER, LOGNAME and
    PATH, which a service may lack and programs such as Ansible's modules need.
    """
    variables = {name: value for name, value in os.environb.items() if name not in _OF_THE_SERVICE}
    variables.setdefault(b"PATH", _DEFAULT_PATH)
    if not {b"HOME", b"USER", b"LOGNAME"} <= variables.keys():
        account = pwd.getpwuid(os.geteuid())
        variables.setdefault(b"HOME", os.fsencode(account.pw_dir))
        variables.setdefault(b"USER", os.fsencode(account.pw_name))
        variables.setdefault(b"LOGNAME", os.fsencode(account.pw_name))
    return variables


def _parse(environment: list[str]) -> dict[bytes, bytes]:
    """Entries without a name or without `=` mean nothing to a program and are left out."""
    variables: dict[bytes, bytes] = {}
    for entry in environment:
        name, equals, value = c_string(entry).partition(b"=")
        if name and equals:
            variables.setdefault(name, value)
    return variables


def _candidates(name: bytes, search_path: bytes) -> list[bytes]:
    if b"/" in name:
        return [name]
    return [os.path.join(folder, name) for folder in search_path.split(b":")] if name else []


def _spawn_file(
    path: bytes, argv: list[bytes], variables: dict[bytes, bytes], streams: Mapping[int, int]
) -> int:
    actions = [
        (os.POSIX_SPAWN_DUP2, streams[fd], fd)
        if fd in streams
        else (os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0)
        for fd in (0, 1, 2)
    ]

    def start(file: bytes, arguments: list[bytes]) -> int:
        return os.posix_spawn(
            file,
            arguments,
            variables,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=_IGNORED_BY_PYTHON,
        )

    try:
        return start(path, argv)
    except OSError as error:
        if error.errno != ENOEXEC:
            raise
    return start(b"/bin/sh", [b"/bin/sh", path, *argv[1:]])
