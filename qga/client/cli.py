"""qgactl's commands and options.

Statuses: 0 done; 1 the agent answered with an error, or not as it should; 2 wrong usage;
3 cannot connect; 4 no answer in time; 130 interrupted. `exec` ends as the guest's program
did, and with 125 for any fault of ours, so that a script can tell the two apart.

No `from __future__ import annotations` here: on Python 3.9 typer finds its options only in
annotations that are not strings. And no Annotated options: Debian 12 has typer 0.7, which
has them as defaults only.
"""

import io
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

import typer

from qga.client import display
from qga.client.agent import GuestAgent
from qga.client.errors import AgentError, AgentTimeout, ConnectError
from qga.version import __version__

FAILED, USAGE, UNREACHABLE, TIMED_OUT = 1, 2, 3, 4
EXEC_FAILED = 125  # as docker and env(1) have it
INTERRUPTED = 128 + signal.SIGINT

# typer has a copy of click in it, or uses the one that is installed: this is the class of either.
UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="qgactl",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Settings(NamedTuple):
    """The options before the command."""

    address: str
    timeout: float
    json: bool

    def agent(self) -> GuestAgent:
        if not self.address:
            raise typer.BadParameter("say where the agent is: --connect unix:PATH, or QGA_CONNECT")
        try:
            return GuestAgent(self.address, self.timeout)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None


def positive(seconds: float) -> float:
    if not seconds > 0:
        raise typer.BadParameter(f"{seconds:g} is not a number of seconds above 0")
    return seconds


def show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"qgactl {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    connect: str = typer.Option(
        "", envvar="QGA_CONNECT", metavar="ADDRESS", help="The agent: unix:PATH."
    ),
    timeout: float = typer.Option(
        5.0,
        metavar="SECONDS",
        callback=positive,
        help="How long to wait for each answer of the agent (inf: for ever).",
    ),
    as_json: bool = typer.Option(False, "--json", help="Write JSON, for programs."),
    version: bool = typer.Option(
        False, "--version", callback=show_version, is_eager=True, help="Show it."
    ),
) -> None:
    """Talk to the QEMU guest agent of a guest, from its host.

    \b
    Examples:
      export QGA_CONNECT=unix:/var/lib/libvirt/qemu/channel/vm.org.qemu.guest_agent.0
      qgactl ping
      qgactl info
      qgactl call guest-get-osinfo
      qgactl exec -- uname -a

    \b
    Exit status:
      0    done
      1    the command failed in the guest
      2    wrong usage
      3    cannot connect
      4    no answer in time
      130  interrupted
      exec: that of the program (128 + signal if killed), 125 if the agent failed
    """
    context.obj = Settings(connect, timeout, as_json)


@app.command()
def ping(
    context: typer.Context,
    count: int = typer.Option(1, metavar="N", min=1, help="How often."),
) -> None:
    """Ask the agent whether it is there, and measure the round trip.

    \b
    Examples:
      qgactl ping
      qgactl ping --count 100
    """
    settings: Settings = context.obj
    times = []
    with faults(), settings.agent() as agent:
        for number in range(1, count + 1):
            times.append(agent.ping() * 1000)
            if not settings.json:
                line = f"{settings.address}: answer {number} after {times[-1]:.3f} ms"
                print(display.printable(line))
    if settings.json:
        print(display.compact_json({"round-trip-ms": [round(time, 3) for time in times]}))
    elif count > 1:
        mean = sum(times) / count
        print(f"min {min(times):.3f} ms, mean {mean:.3f} ms, max {max(times):.3f} ms")


@app.command()
def info(context: typer.Context) -> None:
    """Show the agent's version and its commands.

    \b
    Examples:
      qgactl info
      qgactl --json info
    """
    settings: Settings = context.obj
    with faults(), settings.agent() as agent:
        if settings.json:
            print(display.compact_json(agent.call("guest-info")))
        else:
            display.show_info(settings.address, agent.info())


@app.command()
def call(
    context: typer.Context,
    command: str = typer.Argument(..., help="Such as guest-get-time.", show_default=False),
    arguments: Optional[list[str]] = typer.Argument(
        None, metavar="KEY=VALUE", help="Its arguments."
    ),
) -> None:
    """Have the agent run any of its commands, and show what it returns as JSON.

    A value that is JSON is sent as such (5, true, null, [1,2], {"a":"b"}), any other as a
    string. For a string that looks like JSON write the quotes of JSON: key='"123"'.

    \b
    Examples:
      qgactl call guest-get-time
      qgactl call guest-file-open path=/etc/hosts mode=r
      qgactl call guest-file-read handle=1000 count=65536
      qgactl call guest-exec path=/bin/ls 'arg=["-l","/"]' capture-output=true
    """
    settings: Settings = context.obj
    named = pairs(arguments or [])
    with faults(), settings.agent() as agent:
        value = agent.call(command, {key: parse_value(text) for key, text in named.items()})
    print(display.compact_json(value) if settings.json else display.pretty_json(value))


@app.command(
    name="exec",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
def execute(
    context: typer.Context,
    argv: list[str] = typer.Argument(..., help="Program and arguments."),
    env: Optional[list[str]] = typer.Option(
        None, metavar="KEY=VALUE", help="Replace its environment; may be repeated."
    ),
    input_file: str = typer.Option(
        "", "--input", metavar="FILE", help="The program's standard input; - is ours."
    ),
    timeout: float = typer.Option(
        math.inf, metavar="SECONDS", callback=positive, help="How long the program may take."
    ),
) -> None:
    """Run a program in the guest, wait for it, and end as it ended.

    Its output and its exit status become those of qgactl. There is no shell in between, and no
    terminal. Put -- before the program, so that its options are not taken for qgactl's.

    \b
    Examples:
      qgactl exec -- ls -l /
      qgactl exec --input setup.sh -- /bin/sh
      qgactl exec --env PATH=/usr/bin --env LANG=C -- sh -c 'echo $LANG'
      qgactl exec --timeout 60 -- apt-get update
    """
    settings: Settings = context.obj
    variables = pairs(env) if env else None
    data = read_input(input_file) if input_file else None
    with faults(EXEC_FAILED), settings.agent() as agent:
        result = agent.exec(argv, input=data, env=variables, timeout=timeout)
    if settings.json:
        print(display.compact_json(display.exec_json(result)))
    else:
        display.show_exec(result)
    raise typer.Exit(result.status)


def pairs(arguments: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"'{display.printable(argument)}' is not KEY=VALUE")
        if key in named:
            raise typer.BadParameter(f"'{display.printable(key)}' is given twice")
        named[key] = value
    return named


def parse_value(text: str) -> Any:
    """JSON if it is JSON (which has no NaN and no infinity), else the text itself."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def read_input(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {name}: {error.strerror}") from None


@contextmanager
def faults(status: int = 0) -> Iterator[None]:
    """Errors of the agent as a line on stderr and an exit status: `status`, or by their kind."""
    try:
        yield
    except AgentError as error:
        display.say(str(error))
        raise typer.Exit(status or status_of(error)) from None


def status_of(error: AgentError) -> int:
    if isinstance(error, ConnectError):
        return UNREACHABLE
    return TIMED_OUT if isinstance(error, AgentTimeout) else FAILED


def run() -> int:
    """qgactl with the arguments of this process; returns its exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when our output is not read on
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(prog_name="qgactl", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "qgactl"
        display.say(f"{error.format_message().rstrip('.')} (see {command} --help)")
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # whatever it is, the user gets a line, not a traceback
        discard_output()
        display.say(f"{type(error).__name__}: {error}")
        return FAILED
    return status if isinstance(status, int) else 0


def discard_output() -> None:
    """It cannot be written: keep the interpreter from trying once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
