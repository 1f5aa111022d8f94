"""Tools that run programs in a guest."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import Any

from qga.client.captured import feed
from qga.client.errors import CommandNotFound
from qga.client.program_options import NO_LIMITS, Limits
from qga.client.programs import PlainProgram, Program, StreamedProgram
from qga.client.results import ExecResult
from qga.mcp.arguments import Argument
from qga.mcp.call import Agent, Call
from qga.mcp.files import text_or_bytes
from qga.mcp.reply import Data
from qga.mcp.tools import GUEST, Service, tool

MOST_OUTPUT = 96 * 1024
"""Bytes of each output stream that a result contains."""

PROGRAM_SECONDS = 60.0
"""Seconds that a program may run, unless the call sets a timeout."""

LAST_WORDS = 10.0
"""Further seconds for the agent to report the exit."""

FIRST_DELAY, LONGEST_DELAY, DELAY_GROWTH = 0.005, 0.2, 1.5

MOST_INPUT = 1024 * 1024
"""Characters of standard input."""

MOST_LINES = 2000
"""Entries of the journal in one result."""

MOST_BYTES, MOST_PROCESSES, LEAST_CPUS, MOST_CPUS = 2**50, 4_194_304, 0.01, 8192.0

WITHOUT_A_PAGER = ("journalctl", "--no-pager", "--quiet", "--output=short-iso")


@tool(
    GUEST,
    Argument("argv", "strings", "the program and its arguments; no shell is involved", True),
    Argument("user", "string", "the user to run it as (default: the agent's, root)", filled=True),
    Argument("directory", "string", "the directory to run it in", filled=True),
    Argument("env", "variables", "its whole environment (default: the agent's)", secret=True),
    Argument("input", "string", "its standard input", longest=MOST_INPUT, secret=True),
    Argument("timeout", "number", "seconds after which it is ended (default: 60)", least=0.1),
    Argument("memory", "integer", "bytes that it may use", least=1, most=MOST_BYTES),
    Argument("processes", "integer", "processes that it may have", least=1, most=MOST_PROCESSES),
    Argument(
        "cpus", "number", "processors that it may use, such as 0.5", least=0.01, most=MOST_CPUS
    ),
    needs=("exec",),
    reads_only=False,
)
def run_program(
    service: Service,
    call: Call,
    guest: str,
    argv: Sequence[str],
    user: str | None = None,
    directory: str | None = None,
    env: dict[str, str] | None = None,
    input: str = "",
    timeout: float = PROGRAM_SECONDS,
    memory: int | None = None,
    processes: int | None = None,
    cpus: float | None = None,
) -> Data:
    """Run a program in a guest and wait for its end. Returns its exit code or signal and the
    beginning of its output. With a timeout or limits, everything that it started ends with it."""
    seconds = min(timeout, service.longest)
    call.extend(seconds + LAST_WORDS)
    limits = Limits(memory=memory, processes=processes, cpu=cpus)
    how = {"env": env, "user": user, "cwd": directory}
    with service.guests.agent(guest, call) as agent:
        return Data(
            f"the guest '{guest}'",
            run(agent, call, list(argv), input.encode(), seconds, limits, how),
        )


@tool(
    GUEST,
    Argument("unit", "string", "a unit of systemd, such as nginx.service"),
    Argument("since", "string", "the time of the first entry, such as '1 hour ago'"),
    Argument("grep", "string", "a regular expression that an entry must match"),
    Argument("priority", "string", "the least severe level, such as warning"),
    Argument("lines", "integer", "the most entries (default: 200)", least=1, most=MOST_LINES),
    needs=("exec|journal",),
)
def read_journal(
    service: Service,
    call: Call,
    guest: str,
    unit: str = "",
    since: str = "",
    grep: str = "",
    priority: str = "",
    lines: int = 200,
) -> Data:
    """Read the last entries of the journal of a guest. This runs journalctl in the guest."""
    given = {"unit": unit, "since": since, "grep": grep, "priority": priority}
    options = [f"--{name}={value}" for name, value in given.items() if value]
    argv = [*WITHOUT_A_PAGER, f"--lines={lines}", *options]
    seconds = call.seconds
    call.extend(seconds + LAST_WORDS)
    with service.guests.agent(guest, call) as agent:
        result = run(agent, call, argv, b"", seconds, NO_LIMITS, {})
        return Data(f"the guest '{guest}'", result)


def run(
    agent: Agent,
    call: Call,
    argv: list[str],
    input: bytes,
    seconds: float,
    limits: Limits,
    how: dict[str, Any],
) -> dict[str, Any]:
    """Run a program until it exits; returns its status and the beginning of its output."""
    out, err = Beginning(), Beginning()
    delay, deadline = FIRST_DELAY, time.monotonic() + seconds
    ended_by = ""
    with started(agent, argv, input, seconds, limits, how) as program:
        unsent: bytes | None = None if isinstance(program, PlainProgram) else feed(program, input)
        while program.result is None:
            got = program.poll()
            out.take(got.stdout)
            err.take(got.stderr)
            if unsent:
                unsent = feed(program, unsent)
            if not (program.result or program.is_bounded) and time.monotonic() > deadline:
                ended_by = "timeout"
                program.terminate()
                break
            if program.result is None:
                moved = got.stdout or got.stderr
                delay = FIRST_DELAY if moved else min(delay * DELAY_GROWTH, LONGEST_DELAY)
                call.wait(delay)
        result = program.result or ExecResult(signal=signal.SIGKILL)
    end = {"exit-code": result.exitcode} if result.signal is None else {"signal": result.signal}
    ended_by = result.ended_by or ended_by
    reason = {"ended-by": ended_by} if ended_by else {}
    return {**end, **reason, **out.shown("stdout"), **err.shown("stderr")}


def started(
    agent: Agent,
    argv: list[str],
    input: bytes,
    seconds: float,
    limits: Limits,
    how: dict[str, Any],
) -> Program:
    """Start a program with qga-exec, which enforces the timeout, or else with guest-exec."""
    try:
        return StreamedProgram(agent, argv, timeout=seconds, limits=limits, **how)
    except CommandNotFound:
        from qga.client.older_agents import require_no_limits

        require_no_limits(agent, limits)
        return PlainProgram(agent, argv, input=input or None, **how)


class Beginning:
    """The first bytes of a stream, and the number of all its bytes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.count = 0

    def take(self, data: bytes) -> None:
        self.data += data[: MOST_OUTPUT - len(self.data)]
        self.count += len(data)

    def shown(self, name: str) -> dict[str, Any]:
        left_out = self.count - len(self.data)
        more = {f"{name}-bytes-left-out": left_out} if left_out else {}
        return {**text_or_bytes(name, bytes(self.data)), **more}
