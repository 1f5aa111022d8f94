"""Running programs of the guest: their output, their input, and their exit.

    StreamedProgram   with qga-exec: input and output at any time, optionally a terminal; through a
                      data port if one is free, otherwise in requests to the agent
    PlainProgram      with guest-exec, which every agent has: the input is passed at the start, the
                      output arrives when the program has exited

Nothing here blocks: the caller decides how often to `poll`, and when to stop. A program never
outlives its context: if it is still running at the end, it is killed with everything that it
started. The guest's reports are not trusted: output that it announces but never sends is a
ProtocolError, and `abandon` stops waiting for a program that never exits.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from qga.client import captured
from qga.client.agent import GuestAgent
from qga.client.data_ports import DataPort, DataPorts
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    CommandNotFound,
    GuestFrozen,
    ProtocolError,
    QueueFull,
)
from qga.client.older_agents import require_no_limits, wrapped_argv
from qga.client.program_options import DEFAULT_OPTIONS, Limits, ProgramOptions, checked
from qga.client.results import ExecResult, StartedProgram
from qga.client.waits import pause, undisturbed
from qga.wording import counted

Self = TypeVar("Self", bound="Program")

# Seconds for a killed program to disappear, and between two checks.
GRACE = 5.0
PAUSE = 0.02

# Seconds within which each next part of the output of a program that has exited must arrive.
LAST_BYTES = 30.0

# Bytes of input in one request; the agent buffers little more while a program does not read.
INPUT_SIZE = 64 * 1024

# Digits of a pid (PID_MAX_LIMIT).
LONGEST_PID = 7

# The reply of qga 0.1 to arguments that it does not know.
UNKNOWN_ARGUMENT = re.compile("Parameter '(user|group|timeout|limits)' is unexpected")

# The reply of an agent that waited in vain for us to connect to its end of a port.
NOT_SEEN = re.compile("the host is not connected to the port ")

# Sends the signal $1 to the other processes and their descendants, children last, and prints them.
SIGNAL_TREES = """
tree() {
    [ -d "/proc/$1" ] && echo "$1"
    for child in $(cat "/proc/$1/task"/*/children 2>/dev/null); do tree "$child"; done
}
signal=$1
shift
all=$(for process; do tree "$process"; done | sort -u)
kill -s "$signal" $all 2>/dev/null
echo $all
"""


class Output(NamedTuple):
    """The output of a program since the last time."""

    stdout: bytes
    stderr: bytes


class TerminalSize(NamedTuple):
    rows: int
    columns: int


@contextmanager
def unless_exited() -> Iterator[None]:
    """A context for requests that the agent refuses if the program has exited."""
    try:
        yield
    except GuestFrozen:
        raise
    except CommandError:
        pass


class Program:
    """A program of the guest; use it as a context manager."""

    port: DataPort | None = None
    """The data port for its input and output; None if they pass through the agent."""

    is_bounded = False
    """Whether the agent itself enforces the timeout."""

    def __init__(self, agent: GuestAgent, pid: int) -> None:
        self.agent = agent
        self.pid = pid
        self.exited = False
        self.result: ExecResult | None = None
        """Its result, once it has exited and all of its output has arrived."""
        self.doubt = ""
        """Why it may still run although its context has ended."""
        self._abandoned = False

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self) -> Output:
        """Ask the agent for output, and whether the program has exited."""
        raise NotImplementedError

    def signal(self, name: str) -> None:
        """Send a signal, such as "INT", to the program and its descendants."""
        raise NotImplementedError

    def receive(self) -> bytes:
        """Read standard output from the data port."""
        return b""

    def write(self, data: bytes) -> int:
        """Write input, and return how many bytes were accepted."""
        return 0

    def end_input(self) -> None:
        """Close its standard input."""

    def resize(self, size: TerminalSize) -> None:
        """Change the size of its terminal."""

    def terminate(self) -> None:
        """Send SIGTERM, and wait a moment for it to exit."""
        with suppress(AgentError):
            self.signal("TERM")
            self._wait_for_its_end()

    def abandon(self) -> None:
        """Stop waiting for a killed program that the guest still reports as running."""
        self._abandoned = True

    def close(self) -> None:
        """Kill it if it is still running, and make the agent forget it."""
        with suppress(AgentError), undisturbed():
            try:
                self._kill()
            except (AgentTimeout, GuestFrozen, QueueFull) as error:
                self.doubt = error.reason
                raise
            finally:
                if self.port:
                    self.port.close()
            if not self._abandoned:
                self._wait_for_its_end()

    def _kill(self) -> None:
        if not (self.exited or self._abandoned):
            with unless_exited():
                self.signal("KILL")

    def _wait_for_its_end(self) -> None:
        deadline = time.monotonic() + GRACE
        while not self.exited and time.monotonic() < deadline:
            self.poll()
            pause(PAUSE)


class StreamedProgram(Program):
    """A program started with qga-exec, optionally with a connected data port.

    `user`, `group`, `cwd`, `timeout` and `limits` are those of `GuestAgent.exec`. qga 0.1 does not
    enforce the timeout (`is_bounded` is False), cannot set limits (an error), and needs setpriv(1)
    for another user.
    """

    def __init__(
        self,
        agent: GuestAgent,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        terminal: TerminalSize | None = None,
        term: str = "",
        port: DataPort | None = None,
        user: str | None = None,
        group: str | None = None,
        cwd: str | None = None,
        timeout: float = math.inf,
        limits: Limits | None = None,
    ) -> None:
        options = checked(user, group, cwd, timeout, limits)
        name = port.name if port else None

        def start(argv: Sequence[str], options: ProgramOptions) -> StartedProgram:
            return agent.stream_start(
                argv, env=env, port=name, terminal=terminal, term=term, options=options
            )

        try:
            started = start(argv, options)
            self.is_bounded = options.timeout < math.inf
        except CommandNotFound:
            raise
        except CommandError as error:
            if not UNKNOWN_ARGUMENT.fullmatch(error.desc):
                raise
            require_no_limits(agent, limits)
            started = start(wrapped_argv(agent, argv, options, env is not None), DEFAULT_OPTIONS)
        super().__init__(agent, started.pid)
        self.confinement = started.confinement
        self.port = port
        self._received = self._received_errors = 0
        self._sent = 0
        self._last: tuple[int, float] | None = None
        """After the exit: the number of bytes that have arrived, and when the last of them did."""

    def poll(self) -> Output:
        offset = 0 if self.port else self._received
        read = self.agent.stream_read(self.pid, offset, self._received_errors)
        self._received += len(read.stdout)
        self._received_errors += len(read.stderr)
        has_all = self._received >= read.out_total and self._received_errors >= read.err_total
        self.exited = read.exited
        if read.exited and has_all:
            self.result = ExecResult(
                read.exitcode,
                read.signal,
                stdout_truncated=read.stdout_truncated,
                stderr_truncated=read.stderr_truncated,
                ended_by=read.ended_by,
                confinement=self.confinement,
            )
        elif read.exited:
            self._watch_last_bytes(read.out_total + read.err_total)
        return Output(read.stdout, read.stderr)

    def _watch_last_bytes(self, promised: int) -> None:
        """Raise ProtocolError if announced output of a program that has exited does not arrive."""
        now, received = time.monotonic(), self._received + self._received_errors
        if self._last is None or received > self._last[0]:
            self._last = (received, now)
        elif now - self._last[1] > LAST_BYTES:
            raise ProtocolError(
                f"only {received} of the {counted(promised, 'byte')} that the program wrote "
                "have arrived",
                address=self.agent.address,
                command="qga-exec-read",
            )

    def receive(self) -> bytes:
        data = self.port.receive() if self.port else b""
        self._received += len(data)
        return data

    def write(self, data: bytes) -> int:
        if self.port:
            count = self.port.send(data)
        else:
            count = self.agent.stream_write(self.pid, data[:INPUT_SIZE])
        self._sent += count
        return count

    def end_input(self) -> None:
        self.agent.stream_end(self.pid, self._sent if self.port else None)

    def signal(self, name: str) -> None:
        self.agent.stream_signal(self.pid, name)

    def resize(self, size: TerminalSize) -> None:
        self.agent.stream_resize(self.pid, *size)


class RunningProgram(Program):
    """A program that was started with guest-exec."""

    def __init__(self, agent: GuestAgent, pid: int, keeps_files: bool = False) -> None:
        super().__init__(agent, pid)
        self._keeps_files = keeps_files
        self._family = {pid}

    def poll(self) -> Output:
        result = self.agent.exec_status(self.pid)
        if result is None:
            return Output(b"", b"")
        self.exited = True
        self.result = captured.fetched(self.agent, result) if self._keeps_files else result
        return Output(self.result.stdout, self.result.stderr)

    def signal(self, name: str) -> None:
        argv = ["/bin/sh", "-c", SIGNAL_TREES, "sh", name, *map(str, self._family)]
        pid = self.agent.exec_start(argv)  # its output is small, also where that matters
        written = self.agent.exec_wait(pid, GRACE).stdout
        signalled = captured.bounded(self.agent, written).split()
        # Once their parent has exited, they cannot be found any more: remember them.
        self._family.update(
            int(pid) for pid in signalled if pid.isdigit() and len(pid) <= LONGEST_PID
        )

    def _kill(self) -> None:
        if self._keeps_files and not (self.exited or self._abandoned):
            self.signal("TERM")  # the script in the guest removes them
            self._wait_for_its_end()
        super()._kill()


class PlainProgram(RunningProgram):
    """A program started with guest-exec.

    Another user, group or directory needs a shell in the guest, and setpriv(1) for the first two.
    """

    def __init__(
        self,
        agent: GuestAgent,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        input: bytes | None = None,
        merged: bool = False,
        user: str | None = None,
        group: str | None = None,
        cwd: str | None = None,
    ) -> None:
        argv = wrapped_argv(agent, argv, checked(user, group, cwd), env is not None)
        pid, keeps_files = captured.start(agent, argv, input=input, env=env, merged=merged)
        super().__init__(agent, pid, keeps_files)


def start_streamed(
    agent: GuestAgent,
    argv: Sequence[str],
    ports: DataPorts | None = None,
    *,
    env: Mapping[str, str] | None = None,
    terminal: TerminalSize | None = None,
    term: str = "",
    user: str | None = None,
    group: str | None = None,
    cwd: str | None = None,
    timeout: float = math.inf,
    limits: Limits | None = None,
) -> StreamedProgram:
    """Start a program, through a data port if one of `ports` is free.

    The keywords are those of StreamedProgram. CommandNotFound if the agent has no qga-exec: use
    PlainProgram instead.
    """

    def start(port: DataPort | None) -> StreamedProgram:
        try:
            return StreamedProgram(
                agent,
                argv,
                env=env,
                terminal=terminal,
                term=term,
                port=port,
                user=user,
                group=group,
                cwd=cwd,
                timeout=timeout,
                limits=limits,
            )
        except BaseException:
            if port:
                port.close()
            raise

    if ports is None:
        return start(None)
    try:
        return start(ports.open_free(agent, wait=False))
    except CommandError as error:
        if not NOT_SEEN.match(error.desc):
            raise
    return start(ports.open_free(agent))
