"""The output of programs over a transport that carries only small replies, such as libvirt's.

guest-exec-status returns all of it in one reply. If that is too large, libvirt reports an error or
even loses its connection to the agent. So the output of a program comes in slices: as a stream if
the agent has qga-exec, else from files that a script in the guest keeps it in. Output that fits
into a reply after all is returned in it.

What must stay true: neither side keeps more of a stream than guest-exec keeps, and the files are
removed afterwards, unless the script was killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from qga.client.agent import GuestAgent
from qga.client.commands.exec import DELAY_GROWTH, FIRST_DELAY, Capture, environment_of
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ProgramTimeout,
    ProtocolError,
)
from qga.client.program_options import DEFAULT_OPTIONS, ProgramOptions
from qga.client.results import ExecResult
from qga.client.waits import pause, undisturbed
from qga.wording import counted

if TYPE_CHECKING:
    from qga.client.programs import Program

# Bytes of a stream that guest-exec keeps.
MOST_KEPT = 16 * 1024 * 1024

# Bytes of a file in one request.
SLICE = 1024 * 1024

LONGEST_DELAY = 0.1

# Seconds after the timeout for the agent to end the program, before this side does it.
LAST_WORDS = 10.0

# Merges the output streams of a program.
MERGE = 'exec "$@" 2>&1'

# Is given output as it comes: "stdout" or "stderr", and bytes of it.
Watch = Callable[[str, bytes], object]

# Seconds for rm(1), and for reading both files: a guest may deliver them byte by byte.
PATIENCE, FETCH_PATIENCE = 10.0, 60.0

# Seconds for env(1), and the most bytes that it or another helper can write.
ENVIRONMENT_PATIENCE = 60.0
MOST_WRITTEN = 1024 * 1024

# $1: bytes to keep of each stream; $2: bytes that fit into a reply; $3: "merged" or empty. The
# first line of the output is the directory with the files, or empty if the output itself follows.
KEEP = r"""
most=$1 room=$2 merged=$3
shift 3
umask 077
directory=$(mktemp -d) || exit 125
trap 'rm -rf -- "$directory"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT HUP
trap : PIPE  # of what the shell says of a program that was killed, to nobody
keep() { head -c "$most" >"$1"; cat >/dev/null; }
mkfifo "$directory/1" "$directory/2" || exit 125
keep "$directory/out" <"$directory/1" &
keep "$directory/err" <"$directory/2" &
if [ "$merged" ]; then
    { "$@" 2>&1; } >"$directory/1" 2>"$directory/2"
else
    "$@" >"$directory/1" 2>"$directory/2"
fi
status=$?
wait
if [ "$(wc -c <"$directory/out")" -le "$room" ] && [ "$(wc -c <"$directory/err")" -le "$room" ]
then
    echo
    cat "$directory/out"
    cat "$directory/err" >&2
else
    trap - EXIT
    echo "$directory"
fi
exit "$status"
"""


# Runs a program with a file as its input, which is removed before. $1: the file.
FROM_FILE = 'exec <"$1" && rm -f -- "$1" && shift && exec "$@"'


def run(
    agent: GuestAgent,
    argv: Sequence[str],
    options: ProgramOptions = DEFAULT_OPTIONS,
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    merged: bool = False,
    timeout: float = math.inf,
    watch: Watch = lambda _stream, _data: None,
) -> ExecResult:
    """Run a program until it exits, as `GuestAgent.exec` does.

    watch: is called with each part of the output that is kept; QEMU's agent reports it at the end.
    timeout: seconds after which this side ends it and raises AgentTimeout. The timeout in `options`
    is enforced by the agent and raises ProgramTimeout.
    """
    from qga.client.older_agents import require_no_limits
    from qga.client.programs import PlainProgram, StreamedProgram

    bound = min(timeout, options.timeout)
    as_whom: dict[str, Any] = {"user": options.user, "group": options.group, "cwd": options.cwd}
    if merged and options != DEFAULT_OPTIONS:  # qga-exec and QEMU's agent 7.2 cannot merge streams
        argv, merged = ["/bin/sh", "-c", MERGE, "sh", *argv], False
    if not merged:
        with suppress(CommandNotFound):
            streamed = StreamedProgram(
                agent, argv, env=env, timeout=options.timeout, limits=options.limits, **as_whom
            )
            patience = options.timeout + LAST_WORDS if streamed.is_bounded else bound
            result = finished(streamed, input or b"", min(timeout, patience), watch)
            if result.ended_by == "timeout":
                raise ProgramTimeout(agent.address, options.timeout, result)
            return result
    require_no_limits(agent, options.limits)
    plain = PlainProgram(agent, argv, env=env, input=input, merged=merged, **as_whom)
    return finished(plain, None, bound, watch)


def finished(
    program: Program,
    input: bytes | None,
    timeout: float,
    watch: Watch = lambda _stream, _data: None,
) -> ExecResult:
    """The result of a program, with its captured output. `input`: its standard input."""
    deadline, delay = time.monotonic() + timeout, FIRST_DELAY
    out, err = Kept(partial(watch, "stdout")), Kept(partial(watch, "stderr"))
    with program:
        unsent = None if input is None else feed(program, input)
        while program.result is None:
            got = program.poll()
            moved = out.take(got.stdout) | err.take(got.stderr)
            if unsent:
                rest = feed(program, unsent)
                moved |= len(rest) < len(unsent)
                unsent = rest
            if program.result is None and time.monotonic() > deadline:
                program.terminate()
                so_far = ExecResult(None, None, bytes(out.data), bytes(err.data), True, True)
                raise ProgramTimeout(program.agent.address, timeout, so_far)
            delay = FIRST_DELAY if moved else min(delay * DELAY_GROWTH, LONGEST_DELAY)
            pause(0 if program.result else min(delay, max(0, deadline - time.monotonic())))
    return program.result._replace(
        stdout=bytes(out.data),
        stderr=bytes(err.data),
        stdout_truncated=program.result.stdout_truncated or out.truncated,
        stderr_truncated=program.result.stderr_truncated or err.truncated,
    )


def feed(program: Program, data: bytes) -> bytes:
    """Write input to a program and return the rest; end-of-file is passed on."""
    rest = data[program.write(data) :] if data else data
    if not rest:
        program.end_input()
    return rest


class Kept:
    """The first MOST_KEPT bytes of a stream, which `watch` is given as they come."""

    def __init__(self, watch: Callable[[bytes], object]) -> None:
        self.watch = watch
        self.data = bytearray()
        self.truncated = False

    def take(self, data: bytes) -> bool:
        """Keep data; returns whether there was any."""
        kept = data[: MOST_KEPT - len(self.data)]
        self.data += kept
        if kept:
            self.watch(kept)
        self.truncated |= len(kept) < len(data)
        return bool(data)


def start(
    agent: GuestAgent,
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    merged: bool = False,
) -> tuple[int, bool]:
    """Start a program with guest-exec; returns its pid, and whether to call `fetched`.

    If the guest has no shell or may not run one, the agent captures the output, which must then be
    small. Input that does not fit into a request is passed in a file.
    """
    if input is not None and len(input) > agent.max_data():
        return start_from_file(agent, argv, input, env, merged)
    capture: Capture = "merged" if merged else True
    limit = agent.max_output()
    if limit is not None:
        set_env = [] if env is None else ["env", "-i", *environment_of(env)]
        sizes = [str(MOST_KEPT + 1), str(limit - SLICE), "merged" if merged else ""]
        script = ["/bin/sh", "-c", KEEP, "sh", *sizes, *set_env, *argv]
        try:
            return agent.exec_start(script, input=input), True
        except CommandNotFound:
            raise
        except CommandError:
            pass
    return agent.exec_start(argv, input=input, env=env, capture=capture), False


def start_from_file(
    agent: GuestAgent,
    argv: Sequence[str],
    input: bytes,
    env: Mapping[str, str] | None,
    merged: bool,
) -> tuple[int, bool]:
    with undisturbed():
        made = agent.exec_wait(agent.exec_start(["mktemp"]), PATIENCE)
    path = made.stdout.decode(errors="replace").strip()
    if made.status or not path:
        reason = made.stderr.decode(errors="replace").strip()
        raise AgentError(f"mktemp: {reason}", address=agent.address, command="guest-exec")
    try:
        agent.write_file(path, input)
        set_env = [] if env is None else ["env", "-i", *environment_of(env)]
        return start(
            agent, ["/bin/sh", "-c", FROM_FILE, "sh", path, *set_env, *argv], merged=merged
        )
    except BaseException:
        with suppress(AgentError), undisturbed():
            remove(agent, path)
        raise


def remove(agent: GuestAgent, path: str) -> None:
    agent.exec_wait(agent.exec_start(["rm", "-rf", "--", path], capture=False), PATIENCE)


def fetched(agent: GuestAgent, result: ExecResult) -> ExecResult:
    """Turn the result of the script KEEP into that of its program."""
    line, newline, rest = result.stdout.partition(b"\n")
    if not newline:  # it was killed, or could not create files
        return result
    if not line:
        return result._replace(stdout=rest)
    directory = line.decode(errors="replace")
    deadline = time.monotonic() + FETCH_PATIENCE
    try:
        out, err = (read(agent, f"{directory}/{name}", deadline) for name in ("out", "err"))
    finally:
        with suppress(AgentError), undisturbed():
            remove(agent, directory)
    return result._replace(
        stdout=out[:MOST_KEPT],
        stderr=err[:MOST_KEPT],
        stdout_truncated=len(out) > MOST_KEPT,
        stderr_truncated=len(err) > MOST_KEPT,
    )


def read(agent: GuestAgent, path: str, deadline: float) -> bytes:
    """Read a file of the guest, at most one byte more than is kept. Raises AgentTimeout."""
    content = bytearray()
    with agent.opened(path) as handle:
        while len(content) <= MOST_KEPT:
            if time.monotonic() > deadline:
                reason = f"{path} is incomplete: {counted(len(content), 'byte')} so far"
                raise AgentTimeout(agent.address, "guest-file-read", FETCH_PATIENCE, reason)
            piece = agent.file_read(handle, SLICE)
            content += piece.data
            if piece.eof or not piece.data:
                break
    return bytes(content)


def environment(
    agent: GuestAgent,
    timeout: float = ENVIRONMENT_PATIENCE,
    *,
    user: str | None = None,
    group: str | None = None,
) -> dict[str, str]:
    """The default environment of this user's programs, as far as it is UTF-8."""
    argv, patience = ["env", "-0"], min(timeout, ENVIRONMENT_PATIENCE)
    if user or group:
        result = run(agent, argv, ProgramOptions(user, group), timeout=patience)
    else:
        result = agent.exec_wait(agent.exec_start(argv), patience)
    if result.status:
        reason = result.stderr.decode(errors="replace").strip()
        raise AgentError(f"env: {reason}", address=agent.address, command="guest-exec")
    texts = bounded(agent, result.stdout).decode(errors="ignore").split("\0")
    return dict(text.split("=", 1) for text in texts if "=" in text)


def bounded(agent: GuestAgent, output: bytes) -> bytes:
    """Return the output of a helper program; ProtocolError if it is longer than possible."""
    if len(output) > MOST_WRITTEN:
        size = counted(len(output), "byte")
        reason = f"the guest reports {size} of output, more than the program can write"
        raise ProtocolError(reason, address=agent.address, command="guest-exec-status")
    return output
