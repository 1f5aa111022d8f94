"""Programs whose input and output are streamed while they run.

Over a data port (qga.ports) the streams are raw bytes; without one, the host sends and fetches them
in pieces. Like those of guest-exec, programs outlive the connection that started them, but only the
channel that started them can access them. The code for the streams is imported when it is needed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING, Any, Optional, Union, cast

from qga import Base64, Caller, CommandGroup, NotRequired, Payload, QgaError, command
from qga.policy.launch import Wanted
from qga.policy.quota import Quota
from qga.programs.limits import NO_LIMITS, limits_of
from qga.records import TypedDict
from qga.wording import counted

if TYPE_CHECKING:
    from qga.plugin.services import Services
    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict

    from ._flows import Output
    from ._streams import Program, Size

MAX_ENDED = 256
MAX_KEPT_OF_ENDED = 16 * 1024 * 1024
"""Finished programs of a channel that are remembered, and bytes of their output; more drop the
oldest."""

_DESCRIPTORS = 6  # of a program: pidfd, three pipes or a terminal twice, port, cgroup

DEFAULT_ROWS, DEFAULT_COLUMNS = 24, 80

_MAX_SIZE = 2**16 - 1  # rows or columns of a terminal (ioctl_tty(2))

Signal = Union[int, str]

QgaExecRead = TypedDict(
    "QgaExecRead",
    {
        "out-data": NotRequired[Payload],
        "out-offset": int,
        "out-total": int,
        "err-data": NotRequired[Payload],
        "err-offset": int,
        "err-total": int,
        "exited": bool,
        "exitcode": NotRequired[int],
        "signal": NotRequired[int],
        "out-truncated": NotRequired[bool],
        "err-truncated": NotRequired[bool],
        "ended-by": NotRequired[str],
    },
)


class QgaExec(TypedDict):
    pid: int
    confinement: NotRequired[str]


QgaExecLimits = TypedDict(
    "QgaExecLimits",
    {
        "memory": NotRequired[int],
        "cpu": NotRequired[float],
        "processes": NotRequired[int],
        "cpu-seconds": NotRequired[int],
        "open-files": NotRequired[int],
        "file-size": NotRequired[int],
        "output": NotRequired[int],
    },
)


class QgaExecWrite(TypedDict):
    count: int


def _may_start(policy: Policy, given: dict[str, Any]) -> Verdict:
    path, arg, env = given["path"], given.get("arg") or [], given.get("env")
    return policy.judge_program(path, arg, env, _wanted(**given))


def _wanted(
    *,
    directory: str | None = None,
    tty: bool = False,
    user: str | None = None,
    group: str | None = None,
    timeout: float | None = None,
    limits: QgaExecLimits | None = None,
    **_others: Any,
) -> Wanted:
    """How to run a program, from the arguments of qga-exec."""
    if timeout is not None and not 0 < timeout < inf:
        raise QgaError(f"Parameter 'timeout' is {timeout}; use a number of seconds above 0")
    if directory == "":
        raise QgaError("Parameter 'directory' is empty; use the path of a directory")
    most = limits_of(cast(Any, limits)) if limits else NO_LIMITS
    return Wanted(directory, tty, user, group, timeout, most)


class Streams(CommandGroup):
    """Running programs with a terminal, or with their input and output as they come."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._programs: dict[tuple[str, int], Program] = {}  # by channel and pid
        # By channel, the bytes of output that finished programs keep, by pid, oldest first.
        self._ended: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._running = Quota()

    @command(
        access="unrestricted",
        blocking=True,
        secret=("env=",),
        verdict=_may_start,
        like=("guest-exec",),
    )
    def qga_exec(
        self,
        path: str,
        arg: Optional[list[str]] = None,
        env: Optional[list[str]] = None,
        directory: Optional[str] = None,
        port: Optional[str] = None,
        tty: bool = False,
        rows: int = DEFAULT_ROWS,
        columns: int = DEFAULT_COLUMNS,
        term: str = "",
        user: Optional[str] = None,
        group: Optional[str] = None,
        timeout: Optional[float] = None,
        limits: Optional[QgaExecLimits] = None,
        *,
        caller: Caller,
    ) -> QgaExec:
        """Start a program whose input and output are streamed while it runs.

        path: the program; without a `/` it is searched for in PATH.
        arg: its arguments.
        env: its whole environment, `NAME=value` each; by default the agent's own.
        directory: its working directory; by default the agent's.
        port: name of a data port that the host is connected to, for the program's standard input
            and output. The program is ended when the host disconnects. Without a port, use
            qga-exec-write and qga-exec-read.
        tty: whether it gets a terminal with `rows` and `columns`. If the configuration restricts
            which programs may run, it must also set `terminal=true`.
        term: the type of the terminal (TERM), if `env` is not given.
        user: the user to run it as, by name or number, with all groups of that user. If `env` is
            not given, HOME, SHELL, USER and LOGNAME are those of the user. No PAM session is
            opened. By default the agent's own user or the one in the configuration. If the
            configuration restricts which programs may run, the user cannot be chosen.
        group: replaces the user's primary group, by name or number. With it, a number as `user`
            needs no account.
        timeout: seconds after which it is ended: SIGTERM, and 2 s later SIGKILL.
        limits: what it may use: `memory` in bytes, `cpu` as a number of processors (0.5 is half
            of one), `processes` including threads, `cpu-seconds`, `open-files`, `file-size` in
            bytes, and `output`, the bytes of both streams together.
        With a timeout or limits, everything that the program started ends with it, and the reply
        contains `confinement`. With "cgroup", no process escapes. "rlimits" is for guests without
        cgroup v2: memory is limited for each process, processes for all those of the user, `cpu`
        is refused, and a process survives if it has left the process group and lost its parent.
        Returns the process ID, which is also the process group's. With a port and no terminal,
        fetch standard error with qga-exec-read.
        """
        size = _size(rows, columns) if tty else None
        wanted = _wanted(
            directory=directory, tty=tty, user=user, group=group, timeout=timeout, limits=limits
        )
        self._reserve(caller)
        try:
            program = _start([path, *(arg or [])], env, wanted, term, size, port, caller)
        except BaseException:
            self._running.give(caller.channel, 1)
            self._give_descriptors(caller.channel)
            raise
        self.agent.loop.post(lambda: self._watch(program, caller.channel), wake=False)
        result: QgaExec = {"pid": program.pid}
        if program.confinement:
            result["confinement"] = program.confinement
        return result

    @command(access="unrestricted", changes=False, like=("guest-exec",))
    def qga_exec_read(
        self,
        pid: int,
        offset: Optional[int] = None,
        err_offset: Optional[int] = None,
        *,
        caller: Caller,
    ) -> QgaExecRead:
        """Fetch the output of a program, and report whether it has exited. Never waits.

        pid: as returned by qga-exec.
        offset: of the first byte to return; bytes before it were received and are dropped. By
            default nothing is dropped.
        err-offset: the same for standard error.
        Returns the buffered output from there on and, if the program has exited, its exit code or
        signal. `ended-by` is "timeout", "memory", "output", "cpu-seconds" or "file-size" if that
        ended it. A program that has 256 KiB of a stream in the buffer waits until they are fetched.
        The totals count all bytes so far, with a port those written to it; they are final when
        `exited` is true. A stream is truncated if a background process of the program may still
        write to it.
        """
        program = self._program(pid, caller)
        out, err = program.out, program.err
        program.acknowledge(
            _count_before(out, offset, "offset"), _count_before(err, err_offset, "err-offset")
        )
        if pid in self._ended[caller.channel]:
            self._ended[caller.channel][pid] = program.kept
        result: QgaExecRead = {
            "out-offset": out.offset,
            "out-total": out.offset if program.has_port else out.total,
            "err-offset": err.offset if err else 0,
            "err-total": err.total if err else 0,
            "exited": program.ended,
        }
        if out.data and not program.has_port:
            result["out-data"] = Payload(bytes(out.data))
        if err is not None and err.data:
            result["err-data"] = Payload(bytes(err.data))
        if program.ended and program.code is not None:
            if program.code < 0:
                result["signal"] = -program.code
            else:
                result["exitcode"] = program.code
            if program.ended_by:
                result["ended-by"] = program.ended_by
            for name, output in (("out", out), ("err", err)):
                if output is not None and output.truncated:
                    result[f"{name}-truncated"] = True  # type: ignore[literal-required]
        return result

    @command(access="unrestricted", changes=False, secret=("buf-b64",), like=("guest-exec",))
    def qga_exec_write(
        self,
        pid: int,
        buf_b64: Optional[Base64] = None,
        eof: bool = False,
        after: Optional[int] = None,
        *,
        caller: Caller,
    ) -> QgaExecWrite:
        """Write to the standard input of a program, or end it. Never waits.

        pid: as returned by qga-exec.
        buf-b64: the bytes, base64-encoded; refused if the input comes from a port.
        eof: whether the input ends after these bytes. Ignored unless all of them were accepted.
        after: with `eof` and a port, the number of bytes from the port after which the input ends.
        Returns how many bytes were accepted. At most 256 KiB are buffered for the program.
        """
        program = self._program(pid, caller)
        data = buf_b64.decode() if buf_b64 else b""
        if program.has_port and data:
            raise QgaError(f"the input of PID {pid} comes from its port")
        if after is not None and not (program.has_port and eof and after >= 0):
            raise QgaError("Parameter 'after' is for the end of what comes from a port")
        if data and program.input.finished:
            raise QgaError(f"the input of PID {pid} has ended already")
        count = program.input.put(data)
        if eof and count == len(data):
            program.end_input(after or 0)
        return {"count": count}

    @command(access="unrestricted", like=("guest-exec",))
    def qga_exec_signal(self, pid: int, signal: Signal, *, caller: Caller) -> None:
        """Send a signal to the process group of a program.

        pid: as returned by qga-exec.
        signal: its name, such as INT, or its number.
        """
        program = self._program(pid, caller)
        number = _signal_number(signal)
        try:
            program.signal(number)
        except ProcessLookupError:
            raise QgaError(f"PID {pid} has ended already") from None

    @command(access="unrestricted", changes=False, like=("guest-exec",))
    def qga_exec_resize(self, pid: int, rows: int, columns: int, *, caller: Caller) -> None:
        """Change the size of a program's terminal. The program gets SIGWINCH.

        pid: as returned by qga-exec.
        rows, columns: the new size.
        """
        if not self._program(pid, caller).resize(_size(rows, columns)):
            raise QgaError(f"PID {pid} has no terminal")

    def _program(self, pid: int, caller: Caller) -> Program:
        program = self._programs.get((caller.channel, pid))
        if program is None:
            raise QgaError(f"PID {pid} does not exist")
        return program

    def _reserve(self, caller: Caller) -> None:
        """Count a program. Raises QgaError if a limit is exceeded."""
        channel, limit = caller.channel, caller.policy.limits.limits_children
        self.agent.descriptors.take(channel, _DESCRIPTORS)
        if not self._running.take(channel, 1, limit):
            self._give_descriptors(channel)
            programs = counted(self._running.taken(channel), "program is", "programs are")
            raise QgaError(f"{programs} running already; wait for one to end")

    def _give_descriptors(self, channel: str) -> None:
        self.agent.descriptors.give(channel, _DESCRIPTORS)

    def _watch(self, program: Program, channel: str) -> None:
        if (channel, program.pid) in self._programs:  # an earlier program had the same pid
            self._forget(channel, program.pid)
        self._programs[channel, program.pid] = program
        program.watch(
            self.agent.loop,
            on_end=lambda: self._on_end(program, channel),
            on_closed=lambda: self._give_descriptors(channel),
        )

    def _on_end(self, program: Program, channel: str) -> None:
        self._running.give(channel, 1)
        if self._programs.get((channel, program.pid)) is not program:
            return
        ended = self._ended[channel]
        ended[program.pid] = program.kept
        while len(ended) > MAX_ENDED or sum(ended.values()) > MAX_KEPT_OF_ENDED:
            self._forget(channel, next(iter(ended)))

    def _forget(self, channel: str, pid: int) -> None:
        del self._programs[channel, pid]
        self._ended[channel].pop(pid, None)


def _start(
    argv: list[str],
    env: list[str] | None,
    wanted: Wanted,
    term: str,
    size: Size | None,
    port: str | None,
    caller: Caller,
) -> Program:
    from ._ports import connected_port
    from ._streams import Program

    opened = None
    try:
        launch = caller.policy.program(argv[0], argv[1:], env, wanted)
        if port is not None:
            opened = connected_port(port, caller)
        return Program(argv, env, launch._replace(term=term or launch.term), size, opened)
    except BaseException as error:
        if opened is not None:
            opened.close()
        if isinstance(error, OSError):
            file = os.fsdecode(error.filename or argv[0])
            failed = "enter the directory" if file == wanted.directory else "start"
            raise QgaError(f"failed to {failed} '{file}': {error.strerror}") from error
        raise


def _size(rows: int, columns: int) -> Size:
    from ._streams import Size

    for value in (rows, columns):
        if not 0 < value <= _MAX_SIZE:
            raise QgaError(f"a terminal cannot have {value} rows or columns")
    return Size(rows, columns)


def _count_before(output: Output | None, offset: int | None, name: str) -> int:
    """How many of the buffered bytes are before `offset`."""
    if offset is None or output is None:
        return 0
    if offset > output.total:
        come = counted(output.total, "byte has", "bytes have")
        raise QgaError(f"Parameter '{name}' is {offset}, but only {come} come")
    return max(0, offset - output.offset)


def _signal_number(wanted: Signal) -> int:
    from signal import Signals, valid_signals

    try:
        if isinstance(wanted, int):
            number = wanted
        else:
            number = int(Signals["SIG" + wanted.removeprefix("SIG")])
    except KeyError:
        number = 0
    if number not in valid_signals():
        raise QgaError(f"invalid signal '{wanted}'; use a name such as INT or a number")
    return number
