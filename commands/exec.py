"""Programs that the host has run in the guest.

Children and their output outlive the connection that asked for them. The final status is
given out once, and kept for whoever asks as long as there are not too many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Optional, TypedDict, Union

from qga import Child, CommandGroup, NotRequired, Payload, QgaError, command, decode_base64

if TYPE_CHECKING:
    from qga.agent import Agent

MAX_FINISHED = 1024
"""Children whose final status nobody has fetched; beyond, the oldest is forgotten."""

MAX_FINISHED_BYTES = 256 * 1024 * 1024
"""Output of such children, in all."""

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


class Exec(CommandGroup):
    """Running programs."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self._children: dict[int, Child] = {}
        self._finished: dict[int, int] = {}  # bytes of output by pid, oldest first

    @command(access="unrestricted", blocking=True, secret=("input-data", "env="))
    def guest_exec(
        self,
        path: str,
        arg: Optional[list[str]] = None,
        env: Optional[list[str]] = None,
        input_data: Optional[str] = None,
        capture_output: GuestExecCaptureOutput = False,
    ) -> GuestExec:
        """Start a program.

        path: the program; without a `/` it is searched for in PATH.
        arg: its arguments.
        env: its whole environment, `NAME=value` each; by default the agent's own.
        input-data: its standard input, base64-encoded; by default /dev/null.
        capture-output: which output streams to keep: none, stdout, stderr, separated (both;
            true means this) or merged (both as one). 16 MiB of each are kept.
        Returns the process id, for guest-exec-status.
        """
        stdin = None if input_data is None else decode_base64(input_data)
        try:
            child = Child([path, *(arg or [])], env, stdin, _STREAMS[capture_output])
        except OSError as error:
            raise QgaError(
                "Guest agent command failed, error was 'Failed to execute child process "
                f"\u201c{path}\u201d ({error.strerror})'"
            ) from error
        self.agent.loop.post(lambda: self._watch(child))
        return {"pid": child.pid}

    @command(access="unrestricted", changes=False)
    def guest_exec_status(self, pid: int) -> GuestExecStatus:
        """Whether a program has ended, and how; output only then, and only once.

        pid: as returned by guest-exec.
        """
        child = self._children.get(pid)
        if child is None:
            raise QgaError(f"PID {pid} does not exist")
        if child.status is None:
            return {"exited": False}
        result: GuestExecStatus = {"exited": True}
        if child.status < 0:
            result["signal"] = -child.status
        else:
            result["exitcode"] = child.status
        for stream, capture in self._forget(pid).captures.items():
            if capture.data:
                result[f"{stream}-data"] = Payload(capture.take())  # type: ignore[literal-required]
                result[f"{stream}-truncated"] = capture.truncated  # type: ignore[literal-required]
        return result

    def _watch(self, child: Child) -> None:
        self._finished.pop(child.pid, None)  # of an earlier child whose pid was free again
        self._children[child.pid] = child
        child.watch(self.agent.loop, self._on_end)

    def _on_end(self, child: Child) -> None:
        """Keep the status for whoever asks, but not those of all children for ever."""
        if self._children.get(child.pid) is not child:  # its pid is another one's by now
            return
        self._finished[child.pid] = child.size
        while (
            len(self._finished) > MAX_FINISHED or sum(self._finished.values()) > MAX_FINISHED_BYTES
        ):
            self._forget(next(iter(self._finished)))

    def _forget(self, pid: int) -> Child:
        del self._finished[pid]
        return self._children.pop(pid)
