"""Programs of the guest, run as if they were here; and a shell there."""

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Optional

import typer

from qga.client.agent import GuestAgent
from qga.client.data_ports import DataPorts
from qga.client.errors import AgentError, AgentTimeout, CommandNotFound, GuestFrozen
from qga.client.programs import PlainProgram, Program, environment, start_streamed
from qga.client.results import SIGNAL_STATUS, ExecResult
from qga.ctl import display, terminal
from qga.ctl.app import EXEC_FAILED, JSON, Settings, app, discard_output, faults, positive
from qga.ctl.relay import FORWARDED, TIMED_OUT, Left, Relay, Signals, read_all
from qga.ctl.values import pairs

NO_TERMINAL = (
    "this guest's agent has no qga-exec, which a terminal needs, or it is disabled; "
    "'qgactl exec' without -t does without"
)

# Bytes of each stream that --json keeps in memory.
MOST_KEPT = 32 * 1024 * 1024

# The status for one that is no exit status here, such as an NTSTATUS of Windows.
NO_STATUS = 255

# The shell of whoever the agent runs as, as login(1) would start it.
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


class Wanted(NamedTuple):
    """A program to be run, and how."""

    argv: list[str]
    env: dict[str, str]
    clean_env: bool = False
    input: Optional[int] = None
    tty: bool = False
    timeout: float = math.inf


class Streams:
    """Our standard output and error: what the program writes, at once, byte for byte."""

    def out(self, data: bytes) -> None:
        write_all(sys.stdout.fileno(), data)

    def err(self, data: bytes) -> None:
        write_all(sys.stderr.fileno(), data)

    def finish(self, result: Optional[ExecResult]) -> None:
        """Say what is missing."""
        if result:
            display.tell_truncated(result)


class Kept:
    """The first `MOST_KEPT` bytes of a stream."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.truncated = False

    def take(self, data: bytes) -> None:
        kept = data[: MOST_KEPT - len(self.data)]
        self.data += kept
        self.truncated |= len(kept) < len(data)


class Collected(Streams):
    """What the program writes, kept to be shown as JSON."""

    def __init__(self) -> None:
        self._out, self._err = Kept(), Kept()

    def out(self, data: bytes) -> None:
        self._out.take(data)

    def err(self, data: bytes) -> None:
        self._err.take(data)

    def finish(self, result: Optional[ExecResult]) -> None:
        if result:
            whole = result._replace(
                stdout=bytes(self._out.data),
                stderr=bytes(self._err.data),
                stdout_truncated=result.stdout_truncated or self._out.truncated,
                stderr_truncated=result.stderr_truncated or self._err.truncated,
            )
            print(display.compact_json(display.exec_json(whole)))


@app.command(
    name="exec",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
def execute(
    context: typer.Context,
    argv: list[str] = typer.Argument(
        ..., metavar="PROGRAM [ARG]...", help="Program and arguments.", show_default=False
    ),
    env: Optional[list[str]] = typer.Option(
        None, metavar="KEY=VALUE", help="Add to its environment; may be repeated."
    ),
    clean_env: bool = typer.Option(
        False, "--clean-env", help="Give it no environment but that of --env."
    ),
    input_file: str = typer.Option(
        "-", "--input", metavar="FILE", help="Its standard input, instead of ours."
    ),
    timeout: float = typer.Option(
        math.inf, metavar="SECONDS", callback=positive, help="End it when it takes longer."
    ),
    tty: bool = typer.Option(False, "-t", "--tty", help="Give it a terminal."),
    as_json: bool = JSON,
) -> None:
    """Run a program in the guest as if it were here.

    Its output appears as it is written, and its exit status becomes that of qgactl (124 when
    it took too long). Its input is ours, unless that is a terminal (--input /dev/null: none).
    ^C is sent to the program; a second one kills it. There is no shell in between. Put --
    before the program, so that its options are not taken for qgactl's.

    An agent without qga-exec (QEMU's own) is given all of the input at once, and gives the
    output when the program has ended: 16 MiB of each stream at most. --json keeps 32 MiB.

    \b
    Examples:
      qgactl exec -- ls -l /
      qgactl exec --timeout 600 -- apt-get --yes upgrade
      qgactl exec -- tar -C /etc -c . >etc.tar
      qgactl exec --input setup.sh -- /bin/sh
      qgactl exec --env LANG=C -- sh -c 'echo $LANG'
      qgactl exec -t -- top
    """
    settings: Settings = context.obj
    variables = pairs(env or [])
    with ExitStack() as stack:
        source = opened_input(stack, input_file, tty)
        wanted = Wanted(argv, variables, clean_env, source, tty, timeout)
        status = run(settings, wanted)
    raise typer.Exit(status)


@app.command(
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] [--]",
)
def shell(
    context: typer.Context,
    argv: Optional[list[str]] = typer.Argument(
        None,
        metavar="[PROGRAM [ARG]...]",
        help="Program and arguments, instead of a login shell.",
    ),
    as_json: bool = JSON,
) -> None:
    """Open a terminal in the guest.

    It needs an agent with qga-exec. As with ssh, ~. at the beginning of a line leaves at once
    (~~ sends one ~); what runs there is ended then. The exit status is that of the shell.

    \b
    Examples:
      qgactl shell
      qgactl shell -- python3
    """
    settings: Settings = context.obj
    if settings.json:
        raise typer.BadParameter("a terminal cannot be shown as JSON")
    program = argv or ["/bin/sh", "-c", LOGIN]
    wanted = Wanted(program, {}, input=sys.stdin.fileno(), tty=True)
    raise typer.Exit(run(settings, wanted))


def opened_input(stack: ExitStack, name: str, tty: bool) -> Optional[int]:
    """The descriptor that the program's input comes from; None for no input."""
    if name == "-":
        return sys.stdin.fileno() if tty or not sys.stdin.isatty() else None
    try:
        return stack.enter_context(open(name, "rb", buffering=0)).fileno()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {name}: {error.strerror}") from None


def run(settings: Settings, wanted: Wanted) -> int:
    """Run a program to its end, or to ours; the status to end with."""
    streams = Collected() if settings.json else Streams()
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
        discard_output()
        return SIGNAL_STATUS + signal.SIGPIPE
    streams.finish(program.result)
    return status if 0 <= status <= NO_STATUS else NO_STATUS


@contextmanager
def started(
    agent: GuestAgent, ports: DataPorts, wanted: Wanted, signals: Signals
) -> Iterator[Program]:
    """The program, run in the best way that this agent has."""
    term = os.environ.get("TERM", "") if wanted.tty else ""
    env = wanted.env if wanted.clean_env else None
    if wanted.env and not wanted.clean_env:
        env = {**there(agent, wanted), **({"TERM": term} if term else {}), **wanted.env}
    program: Program
    try:
        size = terminal.size() if wanted.tty else None
        program = start_streamed(agent, wanted.argv, ports, env=env, terminal=size, term=term)
    except GuestFrozen:
        raise
    except CommandNotFound:
        if wanted.tty:
            raise AgentError(NO_TERMINAL, address=agent.address) from None
        data = None if wanted.input is None else read_all(wanted.input, signals)
        program = PlainProgram(agent, wanted.argv, env=env, input=data)
    with program:
        yield program


def there(agent: GuestAgent, wanted: Wanted) -> dict[str, str]:
    """The environment that programs have in the guest."""
    try:
        return environment(agent, wanted.timeout)
    except AgentTimeout as error:
        if error.seconds < wanted.timeout:
            raise
        raise Left(TIMED_OUT) from None


def relayed(
    agent: GuestAgent, program: Program, wanted: Wanted, signals: Signals, streams: Streams
) -> int:
    """Connect the program with us until it ends; its status."""
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
        display.say(f"{agent.address}: process {program.pid} may still run: {relay.complaint}")
    return status


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
