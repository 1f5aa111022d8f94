"""Starting a program, by posix_spawn(3): no copy of the agent's memory is made.

A child has its own session, default signal dispositions, and no descriptors but the three
standard ones.
"""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator, Mapping
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
    environment: `NAME=value` each; None for the agent's own.
    streams: our descriptor for its 0, 1 or 2; /dev/null where there is none.
    """
    variables: Mapping[bytes, bytes] = (
        own_environment() if environment is None else _Entries(environment)
    )
    arguments = [c_string(argument) for argument in argv]
    if not arguments[0]:
        raise OSError(ENOENT, os.strerror(ENOENT))
    if b"/" in arguments[0]:
        return _spawn_file(arguments[0], arguments, variables, streams)
    error = OSError(ENOENT, os.strerror(ENOENT))
    for folder in variables.get(b"PATH", _DEFAULT_PATH).split(b":"):
        try:
            file = folder + b"/" + arguments[0] if folder else arguments[0]
            return _spawn_file(file, arguments, variables, streams)
        except OSError as failure:
            if failure.errno not in (ENOENT, ENOTDIR, EACCES):
                raise
            if failure.errno == EACCES:  # said only when no later one can be run
                error = failure
    raise error


def keep_descriptors() -> None:
    """Pass on none of the descriptors that the agent itself was started with.

    Those that it opens are its own by themselves (PEP 446).
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:  # closed since, as that of the listing
                pass


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


class _Entries(Mapping[bytes, bytes]):
    """`NAME=value` entries as they are, in their order, also two of one name.

    What posix_spawn cannot pass, and no program could look up, is left out: entries without a
    name or without `=`.
    """

    def __init__(self, entries: list[str]) -> None:
        split = (c_string(entry).partition(b"=") for entry in entries)
        self._pairs = [(name, value) for name, equals, value in split if name and equals]

    def __getitem__(self, name: bytes) -> bytes:
        return dict(reversed(self._pairs))[name]

    def __iter__(self) -> Iterator[bytes]:
        return (name for name, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def keys(self) -> list[bytes]:  # type: ignore[override]
        return [name for name, _ in self._pairs]

    def values(self) -> list[bytes]:  # type: ignore[override]
        return [value for _, value in self._pairs]


def _spawn_file(
    path: bytes, argv: list[bytes], variables: Mapping[bytes, bytes], streams: Mapping[int, int]
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
