"""Starting a program.

A child has a session of its own, default signal dispositions, only the three standard descriptors,
which may be a terminal, and the limit on open files that the agent was started with.

subprocess uses vfork(2), which does not copy the agent's memory, but CPython holds the GIL until
exec has succeeded. So the file of the program is read beforehand: if that hangs, on a dead mount or
for a lease, it blocks only this thread.

A program of another user is started with only that user's permissions: its directory is entered and
its file is opened after the change of user, and no error reveals what only root can see. Such a
child is created by fork(2), because the change happens between fork and exec.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from errno import EACCES, EMFILE, ENOENT, ENOEXEC, ENOTDIR
from typing import TYPE_CHECKING, Optional

from qga.programs.inherited_limit import inherited_limit
from qga.programs.limits import NO_LIMITS, Limits
from qga.programs.steps import NotPrepared, Steps
from qga.records import NamedTuple
from qga.wire.payload import c_string

if TYPE_CHECKING:
    from pwd import struct_passwd

    from qga.programs.accounts import Identity
    from qga.programs.job import Job

_DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FIRST_PAGE = 4096

# Pagers, editors and browsers can start a shell.
_NOTHING_INTERACTIVE = {
    b"PAGER": b"cat",
    b"GIT_PAGER": b"cat",
    b"SYSTEMD_PAGER": b"cat",
    b"LESSSECURE": b"1",
    b"EDITOR": b"false",
    b"VISUAL": b"false",
    b"BROWSER": b"false",
}

# Set by the service manager for the agent only.
_OF_THE_SERVICE = frozenset(
    b"DAEMON_ARGS FDSTORE INVOCATION_ID JOURNAL_STREAM LISTEN_FDNAMES LISTEN_FDS LISTEN_PID "
    b"LISTEN_PIDFDID MANAGERPID MANAGERPIDFDID MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE "
    b"NOTIFY_SOCKET RPC_ARGS SYSTEMD_EXEC_PID WATCHDOG_PID WATCHDOG_USEC".split()
)


_of_the_agent: dict[bytes, bytes] = {}
_inherited: dict[bytes, bytes] = {}


class Launch(NamedTuple):
    """How to start a program, in addition to the request.

    name: the name that it is called by; "" for the requested one.
    executable: the path of its file, if known.
    account: the user whose environment it gets; None for the agent's user.
    identity: the IDs that it runs with; None for the agent's.
    clean: whether its environment contains only HOME, USER, LOGNAME, PATH, and variables that
        prevent it from starting a pager, an editor or a browser.
    directory: its working directory; None for the agent's.
    term: the value of TERM, unless the environment is clean or was requested.
    terminal: whether its standard input is a terminal, which becomes its controlling terminal.
    timeout: seconds after which it is killed, with everything that it has started.
    limits: the resources that it may use.
    """

    name: str = ""
    executable: Optional[str] = None
    account: Optional[struct_passwd] = None
    identity: Optional[Identity] = None
    clean: bool = False
    directory: Optional[str] = None
    term: str = ""
    terminal: bool = False
    timeout: Optional[float] = None
    limits: Limits = NO_LIMITS

    @property
    def bounded(self) -> bool:
        """Whether the agent limits the time or the resources of the program."""
        return self.timeout is not None or self.limits != NO_LIMITS


PLAIN = Launch()


def spawn(
    argv: list[str],
    environment: list[str] | None,
    streams: Mapping[int, int],
    launch: Launch = PLAIN,
    job: Job | None = None,
) -> int:
    """Start a program and return its process ID. Raises OSError.

    argv: its name or path, and its arguments. A name without `/` is looked up in the PATH of its
        environment. A file that the kernel cannot execute is run by /bin/sh, as with execvp(3).
    environment: `NAME=value` strings; None for the agent's environment.
    streams: our descriptors for its 0, 1 and 2; /dev/null for those that are missing.
    job: its limits, from `qga.programs.child.job_of`.
    """
    variables = variables_of(environment, launch)
    arguments = [c_string(argument) for argument in (launch.name or argv[0], *argv[1:])]
    failure = FileNotFoundError(ENOENT, os.strerror(ENOENT))
    if launch.identity is not None:
        _give_away(streams, launch.identity.uid)
    if launch.directory is not None and launch.identity is None:  # wait here, not with the GIL
        os.close(os.open(c_string(launch.directory), os.O_PATH | os.O_DIRECTORY))
    for path in candidates(launch.executable or argv[0], variables):
        try:
            pid = _start_file(path, arguments, variables, streams, launch, job)
        except NotPrepared:  # no other file would help
            raise
        except OSError as error:
            if b"/" in arguments[0] or error.errno not in (ENOENT, ENOTDIR, EACCES):
                raise
            if error.errno == EACCES:  # as execvp(3), report it only if no later file can be run
                failure = error  # type: ignore[assignment]
        else:
            if job is not None:
                job.started()
            return pid
    raise failure


def _give_away(streams: Mapping[int, int], uid: int) -> None:
    """Let a user open /dev/stderr and the like, which lead to the pipe or terminal itself."""
    for fd in set(streams.values()):
        with suppress(OSError):  # the agent may lack the capability
            os.fchown(fd, uid, -1)


def candidates(name: str, variables: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The files that a name may refer to."""
    raw = c_string(name)
    if b"/" in raw:
        yield raw
    elif raw:
        for folder in variables.get(b"PATH", _DEFAULT_PATH).split(b":"):
            yield os.path.join(folder, raw)


def _start_file(
    path: bytes,
    argv: list[bytes],
    variables: Mapping[bytes, bytes],
    streams: Mapping[int, int],
    launch: Launch,
    job: Job | None,
) -> int:
    try:
        _read_beforehand(path)
    except OSError:
        if launch.identity is None:
            raise
    try:
        return _start(path, argv, variables, streams, launch, job)
    except OSError as error:
        if error.errno != ENOEXEC:
            raise
    return _start(b"/bin/sh", [b"/bin/sh", path, *argv[1:]], variables, streams, launch, job)


def _read_beforehand(path: bytes) -> None:
    """Wait for the file here instead of in exec. Raises OSError if it is missing.

    Another user may replace it at any moment, with a FIFO that nobody writes to or with a link to a
    device, which only root may open. So what is read is the file that was found to be regular.
    """
    file = os.open(path, os.O_PATH)
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):  # exec refuses any other
            _first_page(f"/proc/self/fd/{file}")
    except (PermissionError, FileNotFoundError):  # it may still be executable; there is no /proc
        pass
    finally:
        os.close(file)


def variables_of(environment: list[str] | None, launch: Launch) -> Mapping[bytes, bytes]:
    """The environment of a program for a request with `environment`."""
    account = _variables_of(launch.account) if launch.account else {}
    if launch.clean:
        return {b"PATH": _DEFAULT_PATH, **(account or _account()), **_NOTHING_INTERACTIVE}
    if environment is None:
        term = {b"TERM": c_string(launch.term)} if launch.term else {}
        shell = {b"SHELL": _shell_of(launch.account)} if launch.account else {}
        own = own_environment()
        return {**own, **account, **shell, **term} if account or term else own
    return Entries(environment)


def own_environment() -> Mapping[bytes, bytes]:
    """The agent's environment when it first started a program, as its children inherit it.

    Variables of the service manager are removed. HOME, USER, LOGNAME and PATH are added: a service
    may lack them, and programs such as Ansible's modules need them.
    """
    if _inherited:
        return _inherited
    variables = {name: value for name, value in os.environb.items() if name not in _OF_THE_SERVICE}
    variables.setdefault(b"PATH", _DEFAULT_PATH)
    if not {b"HOME", b"USER", b"LOGNAME"} <= variables.keys():
        for name, value in _account().items():
            variables.setdefault(name, value)
        if not _of_the_agent:  # ask again next time
            return variables
    _inherited.update(variables)
    return _inherited


def _account() -> dict[bytes, bytes]:
    """Those of the agent's user. They are looked up once: the name service takes 50 µs or more."""
    from pwd import getpwuid

    if not _of_the_agent:
        with suppress(KeyError):  # no entry for the user, or it cannot be read at the moment
            _of_the_agent.update(_variables_of(getpwuid(os.geteuid())))
    return _of_the_agent


def _variables_of(account: struct_passwd) -> dict[bytes, bytes]:
    name = os.fsencode(account.pw_name)
    return {b"HOME": os.fsencode(account.pw_dir), b"USER": name, b"LOGNAME": name}


def _shell_of(account: struct_passwd) -> bytes:
    return os.fsencode(account.pw_shell) or b"/bin/sh"  # as passwd(5) has it


class Entries(Mapping[bytes, bytes]):
    """`NAME=value` entries, unchanged and in order, duplicates included.

    Entries without a name or without `=` are left out, because no program could look them up.
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

    def items(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        return self._pairs


def _start(
    path: bytes,
    argv: list[bytes],
    variables: Mapping[bytes, bytes],
    streams: Mapping[int, int],
    launch: Launch,
    job: Job | None,
) -> int:
    try:
        return _start_limited(path, argv, variables, streams, launch, job)
    except OSError as error:
        if error.errno != EMFILE:
            raise
    return _start_limited(path, argv, variables, streams, launch, job, by_child=True)


def _start_limited(
    path: bytes,
    argv: list[bytes],
    variables: Mapping[bytes, bytes],
    streams: Mapping[int, int],
    launch: Launch,
    job: Job | None,
    by_child: bool = False,
) -> int:
    with inherited_limit(streams.values(), by_child) as limit, Steps() as steps:
        if job is not None and job.entrance is not None:
            steps.enter(job.entrance)
        if limit is not None:
            steps.add(limit)
        if job is not None:
            steps.limit(job.resource_limits)
        if launch.terminal:
            steps.add_terminal()
        pid = _fork(path, argv, variables, streams, launch, steps)
    _unprotect(pid)
    return pid


def _fork(
    path: bytes,
    argv: list[bytes],
    variables: Mapping[bytes, bytes],
    streams: Mapping[int, int],
    launch: Launch,
    steps: Steps,
) -> int:
    import subprocess

    directory = None if launch.directory is None else c_string(launch.directory)
    stdin, stdout, stderr = (streams.get(fd, subprocess.DEVNULL) for fd in (0, 1, 2))
    identity = launch.identity
    if identity is not None and (steps or directory is not None):
        steps.become(identity, directory)
        identity = None
    try:
        child = subprocess.Popen(
            argv,
            executable=path,
            env=variables,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=directory if launch.identity is None else None,
            start_new_session=True,
            preexec_fn=steps.carry_out if steps else None,  # noqa: PLW1509 - see Steps
            # If nothing else is needed, in C: Python code in the child copies pages.
            user=identity and identity.uid,
            group=identity and identity.gid,
            extra_groups=identity and identity.groups,
        )
    except subprocess.SubprocessError:
        raise steps.failure() from None
    child.returncode = 0  # so that Popen does not reap the child
    return child.pid


def _unprotect(pid: int) -> None:
    """Undo OOMScoreAdjust= of the agent's unit: the OOM killer must not spare children."""
    try:
        if int(_first_page("/proc/self/oom_score_adj")) < 0:
            with open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as score:
                score.write(b"0")
    except OSError:  # no /proc, or the child has exited
        pass


def _first_page(path: str | bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, _FIRST_PAGE)
    finally:
        os.close(fd)
