"""Running a program of the guest with the input and output of qgactl."""

import math
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Optional, Protocol

from qga.client.agent import GuestAgent
from qga.client.captured import environment
from qga.client.data_ports import DataPorts
from qga.client.errors import AgentError, AgentTimeout, CommandError, CommandNotFound, GuestFrozen
from qga.client.older_agents import require_no_limits
from qga.client.program_options import NO_LIMITS, Limits
from qga.client.programs import (
    PlainProgram,
    Program,
    StreamedProgram,
    start_streamed,
)
from qga.client.results import SIGNAL_STATUS, ExecResult
from qga.ctl import display, terminal
from qga.ctl.app import EXEC_FAILED, discard_output, faults
from qga.ctl.program_output import Collected, Streams
from qga.ctl.relay import FORWARDED, TIMED_OUT, Left, Relay, Signals, SignalSource, read_all
from qga.ctl.settings import Agent, Settings

NO_TERMINAL = (
    "a terminal needs the qga-exec command, which this guest's agent lacks or has disabled; "
    "use `qgactl exec` without -t instead"
)

# For an exit status that does not exist here, such as an NTSTATUS of Windows.
NO_STATUS = 255


class Wanted(NamedTuple):
    """A program to run, and how."""

    argv: list[str]
    env: dict[str, str]
    clean_env: bool = False
    input: Optional[int] = None
    tty: bool = False
    timeout: float = math.inf
    user: Optional[str] = None
    directory: Optional[str] = None
    limits: Limits = NO_LIMITS
    group: Optional[str] = None


class Sink(Protocol):
    """Takes the output of a program."""

    def out(self, data: bytes) -> None: ...

    def err(self, data: bytes) -> None: ...

    def finish(self, result: Optional[ExecResult]) -> None:
        """All of it has come, or the program has ended without a result."""


def run(settings: Settings, wanted: Wanted) -> int:
    """Run a program until it exits or the user leaves; returns the exit status for qgactl."""
    streams = Collected(settings) if settings.structured else Streams()
    try:
        with faults(EXEC_FAILED), Signals(*FORWARDED) as signals:
            return run_with(settings.agent(), settings.ports(), wanted, signals, streams)
    except BrokenPipeError:
        # As if SIGPIPE had killed us, which `qgactl exec … | head` expects.
        discard_output()
        return SIGNAL_STATUS + signal.SIGPIPE


def run_with(
    agent: Agent, ports: DataPorts, wanted: Wanted, signals: SignalSource, sink: Sink
) -> int:
    """Run a program until it exits, or a signal ends it; returns its status."""
    try:
        with agent, started(agent, ports, wanted, signals) as program:
            status = relayed(agent, program, wanted, signals, sink)
    except Left as left:
        return left.status
    sink.finish(program.result)
    return status if 0 <= status <= NO_STATUS else NO_STATUS


@contextmanager
def started(
    agent: Agent, ports: DataPorts, wanted: Wanted, signals: SignalSource
) -> Iterator[Program]:
    """Start the program with qga-exec, or else with guest-exec."""
    # The terminal in the guest is displayed in the local one, so both have the same type.
    term = os.environ.get("TERM", "") if wanted.tty else ""
    env = wanted.env if wanted.clean_env else None
    argv = wanted.argv
    as_whom: dict[str, Any] = {"user": wanted.user, "group": wanted.group}
    as_whom["cwd"] = wanted.directory
    if wanted.env and not wanted.clean_env and wanted.user:
        # The rest of that user's environment is only known in the guest.
        argv = ["env", *(f"{name}={value}" for name, value in wanted.env.items()), *argv]
    elif wanted.env and not wanted.clean_env:
        env = {**there(agent, wanted), **({"TERM": term} if term else {}), **wanted.env}
    program: Program
    try:
        size = terminal.size() if wanted.tty else None
        program = start_streamed(
            agent,
            argv,
            ports,
            env=env,
            terminal=size,
            term=term,
            timeout=wanted.timeout,
            limits=wanted.limits,
            **as_whom,
        )
        report_confinement(agent, program, wanted.limits)
    except GuestFrozen:
        raise
    except CommandNotFound:
        if wanted.tty:
            raise AgentError(NO_TERMINAL, address=agent.address) from None
        require_no_limits(agent, wanted.limits)
        # guest-exec takes all input with the request.
        data = None if wanted.input is None else read_all(wanted.input, signals)
        program = PlainProgram(agent, argv, env=env, input=data, **as_whom)
    except CommandError as error:
        error.reason = "; ".join(filter(None, [error.reason, agent.guest_doubt]))
        raise
    try:
        with program:
            yield program
    finally:
        if program.doubt:
            display.say(may_still_run(agent, program, program.doubt))


def report_confinement(agent: Agent, program: StreamedProgram, limits: Limits) -> None:
    """Report if the limits are weaker than those of a cgroup."""
    if limits != NO_LIMITS and program.confinement != "cgroup":
        display.note(
            f"{agent.typed}: this guest has no cgroup for the program: limits apply to each process"
        )


def may_still_run(agent: Agent, program: Program, reason: str) -> str:
    return f"{agent.typed}: process {program.pid} may still run: {reason}"


def report_end(agent: Agent, program: Program, wanted: Wanted, timed_out: bool) -> None:
    """Report what ended the program, unless it exited by itself."""
    if timed_out:
        display.note(f"{agent.typed}: the program was terminated after {wanted.timeout:g} s")
    elif program.result and program.result.ended_by:
        display.note(f"{agent.typed}: the program was ended: {program.result.ended_by}")


def there(agent: GuestAgent, wanted: Wanted) -> dict[str, str]:
    """The environment of programs in the guest."""
    try:
        return environment(agent, wanted.timeout)
    except AgentTimeout as error:
        if error.seconds < wanted.timeout:
            raise
        raise Left(TIMED_OUT) from None


def relayed(
    agent: Agent, program: Program, wanted: Wanted, signals: SignalSource, sink: Sink
) -> int:
    """Pass bytes and signals until the program exits; returns its status."""
    source = None if isinstance(program, PlainProgram) else wanted.input
    relay = Relay(program, signals, source, sink.out, sink.err, timeout=wanted.timeout)
    with ExitStack() as stack:
        if wanted.tty:
            relay.size = terminal.size
            if source is not None and os.isatty(source):
                relay.escapes = terminal.Escapes()
                stack.enter_context(terminal.raw(source))
        status = relay.run()
    if relay.complaint:
        display.say(may_still_run(agent, program, relay.complaint))
    else:
        report_end(agent, program, wanted, relay.timed_out)
    return status
