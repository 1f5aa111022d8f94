"""Programs in the guest."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, cast, overload

from qga.client.connection import Connection
from qga.client.conversion import converted, encode_base64, member
from qga.client.errors import (
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ProgramFailed,
    ProgramNotStarted,
)
from qga.client.program_options import DEFAULT_OPTIONS, Limits, ProgramOptions, checked
from qga.client.results import ExecResult, TextResult
from qga.client.waits import Interrupted, pause

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

Capture = Union[bool, Literal["none", "stdout", "stderr", "separated", "merged"]]

# Pauses between two status requests, in seconds: the first, the longest, and the growth.
FIRST_DELAY, LONGEST_DELAY, DELAY_GROWTH = 0.001, 0.5, 1.5


class Exec(Connection):
    @overload
    def exec(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = ...,
        env: Mapping[str, str] | None = ...,
        capture: Capture = ...,
        timeout: float | None = ...,
        user: str | None = ...,
        group: str | None = ...,
        cwd: str | None = ...,
        limits: Limits | None = ...,
        check: bool = ...,
        text: Literal[False] = ...,
    ) -> ExecResult: ...

    @overload
    def exec(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = ...,
        env: Mapping[str, str] | None = ...,
        capture: Capture = ...,
        timeout: float | None = ...,
        user: str | None = ...,
        group: str | None = ...,
        cwd: str | None = ...,
        limits: Limits | None = ...,
        check: bool = ...,
        text: Literal[True],
    ) -> TextResult: ...

    def exec(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        capture: Capture = True,
        timeout: float | None = None,
        user: str | None = None,
        group: str | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        check: bool = False,
        text: bool = False,
    ) -> ExecResult | TextResult:
        """Run a program in the guest and wait until it exits, like subprocess.run.

        argv: a path, or a name to look up in the guest's PATH, and arguments.
        input: its standard input; by default /dev/null.
        env: its whole environment; by default that of the agent.
        capture: True for both output streams, False for none, or "stdout", "stderr", "merged".
        timeout: seconds after which the program and everything that it started is ended.
        user, group: the user and group to run it as, by name or number; HOME, SHELL, USER and
            LOGNAME are set unless `env` is given.
        cwd: its working directory.
        limits: the resources that it may use; requires qga 0.2 in the guest. The result's
            `ended_by` is "memory", "output", "cpu-seconds" or "file-size" if that limit ended it.
            With a timeout or limits, background processes that it leaves behind are killed.
        check: raise ProgramFailed unless it exits with 0.
        text: return a TextResult, with str instead of bytes.

        Raises ProgramTimeout (a TimeoutError), ProgramNotStarted (an OSError; also if there is no
        such user or directory), or another AgentError; ValueError if `user`, `group` or `cwd` is
        empty.

        Everything else also works with QEMU's agent and qga 0.1, but another user requires
        setpriv(1) in the guest, and a directory requires a shell. Through libvirt, whose replies
        are small, such agents keep the output in temporary files, and a program that was killed by
        a signal has the exit code 128 + the signal.
        """
        check_argv(argv)
        options = checked(user, group, cwd, timeout, limits)
        data = input.encode() if isinstance(input, str) else input
        try:
            result = self._run(argv, data, env, capture, options)
        except CommandNotFound:
            raise
        except CommandError as error:
            if error.command in ("guest-exec", "qga-exec"):
                raise ProgramNotStarted(error) from None
            raise
        if check and result.returncode:
            raise ProgramFailed(self.address, argv, result.as_text() if text else result)
        return result.as_text() if text else result

    def _run(
        self,
        argv: Sequence[str],
        input: bytes | None,
        env: Mapping[str, str] | None,
        capture: Capture,
        options: ProgramOptions,
    ) -> ExecResult:
        """Run a program with guest-exec if that is sufficient: it takes the fewest requests."""
        captures_all = capture in (True, "separated", "merged")
        if options == DEFAULT_OPTIONS and not (captures_all and self.max_output() is not None):
            return self._finished(self.exec_start(argv, input=input, env=env, capture=capture))
        from qga.client import captured

        agent, merged = cast("GuestAgent", self), capture == "merged"
        result = captured.run(agent, argv, options, input=input, env=env, merged=merged)
        if not (captures_all or capture == "stdout"):
            result = result._replace(stdout=b"", stdout_truncated=False)
        if not (captures_all or capture == "stderr"):
            result = result._replace(stderr=b"", stderr_truncated=False)
        return result

    def _finished(self, pid: int) -> ExecResult:
        try:
            return self.exec_wait(pid)
        except Interrupted:
            from qga.client.programs import RunningProgram

            RunningProgram(cast("GuestAgent", self), pid).close()
            raise

    def exec_start(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        capture: Capture = True,
    ) -> int:
        """Start a program with guest-exec and return its process ID in the guest.

        Through libvirt, `exec_status` fails if it writes more than 3 MiB: use `exec` there.
        """
        check_argv(argv)
        arguments: dict[str, Any] = {
            "path": argv[0],
            "arg": list(argv[1:]),
            "capture-output": capture,
        }
        if input is not None:
            arguments["input-data"] = encode_base64(input)
        if env is not None:
            arguments["env"] = environment_of(env)
        return self._ask("guest-exec", int, "pid", **arguments)

    def exec_status(self, pid: int) -> ExecResult | None:
        """The result of a program of `exec_start`, once; None while it is running."""
        command = "guest-exec-status"
        reply = self.call(command, pid=pid)
        with self._telling(command):
            return converted(ExecResult, reply) if member(bool, "exited", reply) else None

    def exec_wait(self, pid: int, timeout: float = math.inf) -> ExecResult:
        """Wait until a program of `exec_start` exits. Raises AgentTimeout."""
        deadline = time.monotonic() + timeout
        delay = FIRST_DELAY
        while True:
            result = self.exec_status(pid)
            if result is not None:
                return result
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                reason = f"process {pid} is still running in the guest"
                raise AgentTimeout(self.address, "guest-exec", timeout, reason)
            pause(min(delay, remaining))
            delay = min(delay * DELAY_GROWTH, LONGEST_DELAY)


def check_argv(argv: Sequence[str]) -> None:
    if isinstance(argv, str) or not argv:
        raise ValueError(f"argv must be a list of at least one string, not {argv!r}")


def environment_of(variables: Mapping[str, str]) -> list[str]:
    """Convert variables to `NAME=value` strings."""
    return [f"{name}={value}" for name, value in variables.items()]
