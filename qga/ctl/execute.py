"""Programs and shells in the guest."""

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Optional

import typer

from qga.client.agent import GuestAgent
from qga.client.data_ports import DataPorts
from qga.client.errors import AgentError, AgentTimeout, CommandError, CommandNotFound, GuestFrozen
from qga.client.how import NO_LIMITS, Limits
from qga.client.older_agents import require_no_limits
from qga.client.programs import (
    PlainProgram,
    Program,
    StreamedProgram,
    environment,
    start_streamed,
)
from qga.client.results import SIGNAL_STATUS
from qga.ctl import display, limit_options, terminal
from qga.ctl.app import EXEC_FAILED, command, discard_output, faults
from qga.ctl.command import RUN
from qga.ctl.guest_words import before_dashes, never, unless_program_of_guest
from qga.ctl.program_output import Collected, Streams
from qga.ctl.relay import FORWARDED, TIMED_OUT, Left, Relay, Signals, read_all
from qga.ctl.settings import Agent, Settings
from qga.ctl.units import seconds
from qga.ctl.values import NotUsable, duration, pairs

NO_TERMINAL = (
    "a terminal needs the qga-exec command, which this guest's agent lacks or has disabled; "
    "use `qgactl exec` without -t instead"
)

# For an exit status that does not exist here, such as an NTSTATUS of Windows.
NO_STATUS = 255

# The login shell of the user that the agent runs as, as login(1) starts it.
LOGIN = """
cd 2>/dev/null
shell=$(getent passwd "$(id -u)" | cut -d : -f 7)
for each in "$shell" /bin/bash /bin/sh; do
    if [ -x "$each" ]; then
        export SHELL="$each"
        exec "$each" -l
    fi
done
"""


USER = typer.Option(
    "",
    "-u",
    "--user",
    metavar="USER",
    help="Run it as this user of the guest (default: that of the agent, root).",
    show_default=False,
)


class Wanted(NamedTuple):
    """A program to run, and how."""

    argv: list[str]
    env: dict[str, str]
    clean_env: bool = False
    input: Optional[int] = None
    tty: bool = False
    timeout: float = math.inf
    user: str = ""
    directory: str = ""
    limits: Limits = NO_LIMITS


@command(
    RUN,
    before_dashes("GUEST -- PROGRAM [ARG]...", never, "[GUEST] --"),
    name="exec",
    context_settings={"allow_interspersed_args": False},
)
def execute(
    context: typer.Context,
    argv: list[str] = typer.Argument(
        ..., metavar="PROGRAM [ARG]...", help="Program and arguments.", show_default=False
    ),
    user: str = USER,
    directory: str = typer.Option(
        "",
        "-w",
        "--workdir",
        metavar="DIR",
        help="Run it in this directory of the guest.",
        show_default=False,
    ),
    env: Optional[list[str]] = typer.Option(
        None,
        metavar="NAME=VALUE",
        help="Set a variable in the program's environment. May be repeated.",
    ),
    clean_env: bool = typer.Option(
        False, "--clean-env", help="Start with an empty environment, apart from --env."
    ),
    input_file: str = typer.Option(
        "-", "--input", metavar="FILE", help="Read standard input from a file of this host."
    ),
    interactive: bool = typer.Option(
        False, "-i", "--interactive", help="Pass on standard input even if it is a terminal."
    ),
    timeout: str = typer.Option(
        "inf",
        metavar="DURATION",
        callback=duration,
        help="Terminate the program when it runs longer. (Before exec, --timeout limits each reply "
        "of the agent.)",
    ),
    tty: bool = typer.Option(False, "-t", "--tty", help="Run the program in a terminal."),
    memory: str = limit_options.MEMORY,
    pids: Optional[int] = limit_options.PIDS,
    cpus: Optional[float] = limit_options.CPUS,
    cpu_seconds: Optional[int] = limit_options.CPU_SECONDS,
    open_files: Optional[int] = limit_options.OPEN_FILES,
    file_size: str = limit_options.FILE_SIZE,
    output_size: str = limit_options.OUTPUT_SIZE,
) -> None:
    """Run a program in the guest.

    Output appears as it is written, and qgactl exits with the program's status, or with 124 after
    a --timeout. The program reads qgactl's standard input unless that is a terminal; --input
    /dev/null gives it none. ^C is sent to the program as SIGINT; a second one kills it. No shell
    is involved. The word before -- is the guest; -- may be left out if the guest is not named
    here, and the program has no -- among its arguments.

    With a timeout or a limit, everything that the program has started ends when it does. A limit
    that ends it is reported. In a guest without cgroup v2 limits apply to each process, and --cpus
    is refused.

    With an agent that lacks qga-exec (QEMU's own), there are no limits, input is sent before the
    program starts, and output appears after it has exited, at most 16 MiB of each stream. --json
    keeps 32 MiB.

    \b
    Examples:
      qgactl exec web -- ls -l /
      qgactl exec web --timeout 10m -- apt-get --yes upgrade
      qgactl exec web -- tar -C /etc -c . >etc.tar
      qgactl exec web --input setup.sh -- /bin/sh
      qgactl exec web -u alice -w /srv -- git pull
      qgactl exec web -u nobody --memory 512M --pids 100 --cpus 0.5 -- ./job
      qgactl exec web --env LANG=C -- sh -c 'echo $LANG'
      qgactl exec web -it -- top
    """
    settings: Settings = context.obj
    variables = pairs(env or [], "NAME=VALUE", "--env")
    limits = limit_options.limits_of(
        memory, pids, cpus, cpu_seconds, open_files, file_size, output_size
    )
    with ExitStack() as stack:
        source = opened_input(stack, input_file, tty or interactive)
        limit = seconds(timeout)
        wanted = Wanted(argv, variables, clean_env, source, tty, limit, user, directory, limits)
        status = run(settings, wanted)
    raise typer.Exit(status)


@command(
    RUN,
    before_dashes("GUEST", unless_program_of_guest),
    context_settings={"allow_interspersed_args": False},
)
def shell(
    context: typer.Context,
    argv: Optional[list[str]] = typer.Argument(
        None,
        metavar="[-- PROGRAM [ARG]...]",
        help="A program to run instead of the login shell.",
    ),
    user: str = USER,
) -> None:
    """Open a login shell in the guest.

    This needs an agent with qga-exec. As with ssh, ~. at the beginning of a line disconnects and
    terminates whatever runs there; ~~ sends one ~. The exit status is that of the shell. If
    standard input is not a terminal, the shell gets none either, and reads commands from it.

    \b
    Examples:
      qgactl shell web
      qgactl shell web -u alice
      qgactl shell web -- python3
    """
    settings: Settings = context.obj
    if settings.structured:
        raise typer.BadParameter("shell has no output as JSON or YAML")
    program = argv or ["/bin/sh", "-c", LOGIN]
    stdin = sys.stdin
    wanted = Wanted(program, {}, input=stdin.fileno(), tty=stdin.isatty(), user=user)
    raise typer.Exit(run(settings, wanted))


def opened_input(stack: ExitStack, name: str, wanted: bool) -> Optional[int]:
    """The descriptor to read the program's input from; None for no input."""
    if name == "-":
        return sys.stdin.fileno() if wanted or not sys.stdin.isatty() else None
    try:
        return stack.enter_context(open(name, "rb", buffering=0)).fileno()
    except OSError as error:
        raise NotUsable(f"cannot read {name}: {error.strerror}") from None


def run(settings: Settings, wanted: Wanted) -> int:
    """Run a program until it exits or the user leaves; returns the exit status for qgactl."""
    streams = Collected(settings) if settings.structured else Streams()
    try:
        with (
            Signals(*FORWARDED) as signals,
            faults(EXEC_FAILED),
            settings.agent() as agent,
            started(agent, settings.ports(), wanted, signals) as program,
        ):
            status = relayed(agent, program, wanted, signals, streams)
    except Left as left:
        return left.status
    except BrokenPipeError:
        # As if SIGPIPE had killed us, which `qgactl exec … | head` expects.
        discard_output()
        return SIGNAL_STATUS + signal.SIGPIPE
    streams.finish(program.result)
    return status if 0 <= status <= NO_STATUS else NO_STATUS


@contextmanager
def started(agent: Agent, ports: DataPorts, wanted: Wanted, signals: Signals) -> Iterator[Program]:
    """Start the program by qga-exec, or else by guest-exec."""
    # The guest's terminal is shown in ours, so it is of our kind.
    term = os.environ.get("TERM", "") if wanted.tty else ""
    env = wanted.env if wanted.clean_env else None
    argv = wanted.argv
    as_whom: dict[str, Any] = {"user": wanted.user or None, "cwd": wanted.directory or None}
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
    with program:
        yield program


def report_confinement(agent: Agent, program: StreamedProgram, limits: Limits) -> None:
    """Which means the agent has used for the limits, where they are weaker than a cgroup."""
    if limits != NO_LIMITS and program.confinement != "cgroup":
        display.note(
            f"{agent.typed}: this guest has no cgroup for the program: limits apply to each process"
        )


def report_end(agent: Agent, program: Program, wanted: Wanted, timed_out: bool) -> None:
    """What has ended the program, if it has not ended by itself."""
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
    agent: Agent, program: Program, wanted: Wanted, signals: Signals, streams: Streams
) -> int:
    """Pass bytes and signals until the program exits; returns its status."""
    source = None if isinstance(program, PlainProgram) else wanted.input
    relay = Relay(program, signals, source, streams.out, streams.err, timeout=wanted.timeout)
    with ExitStack() as stack:
        if wanted.tty:
            relay.size = terminal.size
            if source is not None and os.isatty(source):
                relay.escapes = terminal.Escapes()
                stack.enter_context(terminal.raw(source))
        status = relay.run()
    if relay.complaint:
        display.say(f"{agent.typed}: process {program.pid} may still run: {relay.complaint}")
    else:
        report_end(agent, program, wanted, relay.timed_out)
    return status
