"""Programs that the host runs in the guest.

Programs and their output outlive the connection that started them, but only the channel that
started them can access them. The final status is returned once, and kept until then unless there
are too many.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

from qga import Base64, Caller, Child, CommandGroup, NotRequired, Payload, QgaError, command
from qga.policy.quota import Quota
from qga.records import TypedDict
from qga.wording import counted

if TYPE_CHECKING:
    from qga.plugin.services import Services
    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict

MAX_FINISHED = 1024
"""Finished programs of a channel whose status nobody has fetched; more drop the oldest."""

GuestExecCaptureOutputMode = Literal["none", "stdout", "stderr", "separated", "merged"]
GuestExecCaptureOutput = Union[bool, GuestExecCaptureOutputMode]

_STREAMS: dict[bool | str, dict[str, tuple[int, ...]]] = {
    "none": {},
    "stdout": {"out": (1,)},
    "stderr": {"err": (2,)},
    "separated": {"out": (1,), "err": (2,)},
    "merged": {"out": (1, 2)},
}
_STREAMS[True], _STREAMS[False] = _STREAMS["separated"], _STREAMS["none"]

GuestExecStatus = TypedDict(
    "GuestExecStatus",
    {
        "exited": bool,
        "exitcode": NotRequired[int],
        "signal": NotRequired[int],
        "out-data": NotRequired[Payload],
        "err-data": NotRequired[Payload],
        "out-truncated": NotRequired[bool],
        "err-truncated": NotRequired[bool],
    },
)


class GuestExec(TypedDict):
    pid: int


def may_start(policy: Policy, given: dict[str, Any]) -> Verdict:
    return policy.judge_program(given["path"], given.get("arg") or [], given.get("env"))


class Job:
    """A program and the channel that started it."""

    __slots__ = ("channel", "child", "kept")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.child: Child
        self.kept = 0
        """Bytes of output."""


class Exec(CommandGroup):
    """Running programs."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._jobs: dict[tuple[str, int], Job] = {}  # by channel and pid
        # By channel, pids of the finished programs, oldest first.
        self._finished: defaultdict[str, dict[int, None]] = defaultdict(dict)
        self._running, self._input, self._output = Quota(), Quota(), Quota()

    @command(
        access="unrestricted",
        blocking=True,
        secret=("input-data", "env="),
        verdict=may_start,
    )
    def guest_exec(
        self,
        path: str,
        arg: Optional[list[str]] = None,
        env: Optional[list[str]] = None,
        input_data: Optional[Base64] = None,
        capture_output: GuestExecCaptureOutput = False,
        *,
        caller: Caller,
    ) -> GuestExec:
        """Start a program.

        path: the program; without a `/` it is searched for in PATH.
        arg: its arguments.
        env: its whole environment, `NAME=value` each; by default the agent's own.
        input-data: its standard input, base64-encoded; by default /dev/null.
        capture-output: which output streams to keep: none, stdout, stderr, separated (both;
            true means this) or merged (both as one). 16 MiB of each are kept.
        Returns the process ID, for guest-exec-status.
        """
        stdin = None if input_data is None else input_data.decode()
        streams = _STREAMS[capture_output]
        descriptors = 1 + len(streams) + (stdin is not None)
        self.agent.descriptors.take(caller.channel, descriptors)
        try:
            self._reserve(caller, stdin)
        except BaseException:
            self.agent.descriptors.give(caller.channel, descriptors)
            raise
        try:
            job = self._start([path, *(arg or [])], env, stdin, streams, caller, descriptors)
        except BaseException as error:
            self._running.give(caller.channel, 1)
            self._input.give(caller.channel, len(stdin or b""))
            self.agent.descriptors.give(caller.channel, descriptors)
            if isinstance(error, OSError):
                raise QgaError(
                    f"Failed to execute child process \u201c{path}\u201d ({error.strerror})"
                ) from error
            raise
        self.agent.loop.post(lambda: self._watch(job), wake=False)
        return {"pid": job.child.pid}

    @command(access="unrestricted", changes=False)
    def guest_exec_status(self, pid: int, *, caller: Caller) -> GuestExecStatus:
        """Report whether a program has exited, and if so its status and output, once.

        pid: as returned by guest-exec.
        """
        job = self._jobs.get((caller.channel, pid))
        if job is None:
            raise QgaError(f"PID {pid} does not exist")
        status = job.child.status
        if status is None:
            return {"exited": False}
        result: GuestExecStatus = {"exited": True}
        if status < 0:
            result["signal"] = -status
        else:
            result["exitcode"] = status
        self._forget(caller.channel, pid)
        for stream, capture in job.child.captures.items():
            if capture.data or capture.truncated:
                result[f"{stream}-data"] = Payload(capture.take())  # type: ignore[literal-required]
                result[f"{stream}-truncated"] = capture.truncated  # type: ignore[literal-required]
        return result

    def _reserve(self, caller: Caller, stdin: bytes | bytearray | None) -> None:
        """Count a program and its input. Raises QgaError if a limit is exceeded."""
        limits, channel = caller.policy.limits, caller.channel
        if not self._running.take(channel, 1, limits.limits_children):
            programs = counted(self._running.taken(channel), "program is", "programs are")
            raise QgaError(f"{programs} running already; wait for one to end")
        if not self._input.take(channel, len(stdin or b""), limits.limits_stdin):
            self._running.give(channel, 1)
            raise QgaError(
                "programs have not read their input yet, and at most "
                f"{counted(limits.limits_stdin, 'byte')} can wait for them"
            )

    def _start(
        self,
        argv: list[str],
        env: list[str] | None,
        stdin: bytes | bytearray | None,
        streams: dict[str, tuple[int, ...]],
        caller: Caller,
        descriptors: int,
    ) -> Job:
        channel, limit = caller.channel, caller.policy.limits.limits_captured
        job = Job(channel)
        job.child = Child(
            argv,
            env,
            stdin,
            streams,
            launch=caller.policy.program(argv[0], argv[1:], env),
            claim=lambda wanted: self._claim(job, wanted, limit),
            on_fed=lambda: self._input.give(channel, len(stdin or b"")),
            on_closed=lambda: self.agent.descriptors.give(channel, descriptors),
        )
        return job

    def _claim(self, job: Job, wanted: int, limit: int) -> int:
        """Return how many bytes of output to keep. Older output that nobody fetched is dropped
        first."""
        channel = job.channel
        if self._jobs.get((channel, job.child.pid)) is not job:  # nobody can fetch it any longer
            return 0
        while not self._output.take(channel, wanted, limit):
            finished = self._finished[channel]
            oldest = next((pid for pid in finished if self._has_output(pid, job)), None)
            if oldest is None:
                wanted = limit - self._output.taken(channel)
                self._output.take(channel, wanted, None)
                break
            self._forget(channel, oldest)
        job.kept += wanted
        return wanted

    def _has_output(self, pid: int, other: Job) -> bool:
        job = self._jobs[other.channel, pid]
        return job is not other and job.kept > 0

    def _watch(self, job: Job) -> None:
        place = job.channel, job.child.pid
        if place in self._jobs:  # an earlier program had the same pid
            self._forget(*place)
        self._jobs[place] = job
        job.child.watch(self.agent.loop, lambda _child: self._on_end(job))

    def _on_end(self, job: Job) -> None:
        """Keep the status until it is fetched, but only those of the last MAX_FINISHED programs."""
        channel, pid = job.channel, job.child.pid
        self._running.give(channel, 1)
        if self._jobs.get((channel, pid)) is not job:  # another program has this pid now
            return
        finished = self._finished[channel]
        finished[pid] = None
        while len(finished) > MAX_FINISHED:
            self._forget(channel, next(iter(finished)))

    def _forget(self, channel: str, pid: int) -> None:
        job = self._jobs.pop((channel, pid))
        self._finished[channel].pop(pid, None)
        self._output.give(channel, job.kept)
        job.kept = 0
