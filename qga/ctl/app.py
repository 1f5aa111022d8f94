"""The common parts of qgactl's commands: options, errors and exit statuses.

Statuses: 0 success; 1 the agent answered with an error, or not as it should; 2 wrong usage;
3 cannot connect; 4 no answer in time; 130 interrupted. `exec` exits with the status of the guest's
program, and with 125 if qgactl or the agent fails, so that a script can distinguish the two.

No `from __future__ import annotations` in the modules with commands: on Python 3.9 typer finds
its options only in annotations that are not strings. And no Annotated options: Debian 12 has
typer 0.7, which has them as defaults only.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional, TypeVar

import typer

from qga.client.agent import GuestAgent
from qga.client.conversion import plain
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandNotFound,
    ConnectError,
    GuestFrozen,
)
from qga.client.texts import reason_of
from qga.ctl import display
from qga.ctl.command import USAGE, Commands, class_of, options_given
from qga.ctl.guest_words import Place, first_word
from qga.ctl.main import INTERRUPTED
from qga.ctl.settings import Output, Settings
from qga.ctl.standard_output import STANDARD_OUTPUT, discard, open_standard_streams
from qga.ctl.units import duration, moment
from qga.ctl.usage import UsageError, command_of, sentence
from qga.ctl.values import duration as valid_duration
from qga.ctl.values import pairs
from qga.version import __version__

T = TypeVar("T")

FAILED, UNREACHABLE, TIMED_OUT = 1, 3, 4
EXEC_FAILED = 125  # as docker and env(1) have it

app = typer.Typer(
    name="qgactl",
    cls=Commands,
    # The packages install completions of their own, which know the guests.
    add_completion=False,
    # Brackets in help texts are not markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(
    section: str,
    place: Optional[Place] = None,
    name: Optional[str] = None,
    usage_status: int = USAGE,
    **how: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command of qgactl in a section of its help; its guest is the first word if not `place`d."""
    return app.command(
        name=name,
        cls=class_of(place or first_word(), usage_status),
        rich_help_panel=section,
        **how,
    )


def show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"qgactl {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    connect: str = typer.Option(
        "",
        "-c",
        "--connect",
        envvar="QGA_CONNECT",
        metavar="GUEST",
        help="The guest: a name (qgactl list), the path of a socket, unix:PATH, vsock:CID:PORT, "
        "hvsock:PATH:PORT, libvirt:[URI/]DOMAIN or proxmox:VMID.",
    ),
    timeout: str = typer.Option(
        "5",
        metavar="DURATION",
        callback=valid_duration,
        help="How long to wait for each reply of the agent: 90 (seconds), 500ms, 1h30m, inf.",
    ),
    output: Output = typer.Option(
        Output.TABLE,
        "-o",
        "--output",
        metavar="table|json|yaml",
        help="The format of results. Numbers are exact in JSON and YAML.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Same as --output json."),
    verbose: bool = typer.Option(
        False, "-v", "--verbose", help="Report each request to the agent on standard error."
    ),
    quiet: bool = typer.Option(
        False, "-q", "--quiet", help="Print results and errors only, no notes or confirmations."
    ),
    no_color: bool = typer.Option(
        False, "--no-color", help="Print without colors, even if NO_COLOR is not set."
    ),
    data_ports: Optional[list[str]] = typer.Option(
        None,
        "--data-port",
        envvar="QGA_DATA_PORT",
        metavar="NAME=SOCKET",
        help="The socket of a data port that qgactl does not find itself. NAME= keeps it from "
        "using that port. May be repeated.",
    ),
    version: bool = typer.Option(
        False,
        "-V",
        "--version",
        callback=show_version,
        is_eager=True,
        help="Show the version and exit.",
    ),
) -> None:
    """Talk to the QEMU guest agent of a virtual machine, from its host.

    \b
    Examples:
      qgactl list
      qgactl ping web
      qgactl exec web -- uname -a
      qgactl cp web:/etc/hosts .
      qgactl info libvirt:qemu+ssh://root@host/system/web
      export QGA_CONNECT=web
      qgactl os

    \b
    Exit status:
      0    success
      1    the command failed in the guest
      2    wrong usage
      3    cannot connect
      4    no answer in time
      130  interrupted
      exec: that of the program (128 + signal if killed), 125 if the agent failed
    """
    given = options_given(context, context.params)
    environment = Settings(
        environment="" if "connect" in given else connect,
        data_ports={}
        if "data_ports" in given
        else pairs(data_ports or [], "NAME=SOCKET", "--data-port"),
    )
    context.obj = environment.with_options(given)


def answer(
    context: typer.Context, question: Callable[[GuestAgent], T], show: Callable[[T], None]
) -> None:
    """Ask the agent, and show its answer as a table, or as JSON or YAML."""
    settings: Settings = context.obj
    with faults(), settings.agent() as agent:
        value = question(agent)
    if settings.structured:
        settings.print(plain(value))
    else:
        show(value)


@contextmanager
def faults(status: int = 0) -> Iterator[None]:
    """Turn errors of the agent into a line on stderr and an exit status: `status`, or by class.

    With a `status`, other errors of the system as well; without, `run` reports them.
    """
    try:
        yield
    except GuestFrozen as error:
        display.say(f"{error.address} is frozen{since(error.seconds)}; thaw it with `qgactl thaw`")
        raise typer.Exit(status or FAILED) from None
    except AgentError as error:
        display.say(": ".join(filter(None, (str(error), advice(error)))))
        raise typer.Exit(status or status_of(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if not status:
            raise
        explain(error)
        raise typer.Exit(status) from None


def since(seconds: Optional[float]) -> str:
    if seconds is None:
        return ""
    return f" since {moment(time.time() - seconds)} ({duration(seconds)} ago)"


def advice(error: AgentError) -> str:
    """Advice if the agent refuses a command as a whole."""
    if not isinstance(error, CommandNotFound) or error.reason != error.desc:
        return ""  # or there is better advice
    if "disabled" in error.desc:
        return (
            "it is disabled in the guest (allow-rpcs, block-rpcs or profile); "
            "qgactl doctor shows where to look"
        )
    return "this agent does not offer it; qgactl info lists what it offers"


def status_of(error: AgentError) -> int:
    if isinstance(error, ConnectError):
        return UNREACHABLE
    return TIMED_OUT if isinstance(error, AgentTimeout) else FAILED


def run() -> int:
    """qgactl with the arguments of this process; returns its exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when our output is not read on
    try:
        open_standard_streams()
        # In standalone mode typer would print errors in its own words, and exit.
        status = command_of(app)(prog_name="qgactl", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        return report_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # the user gets a line instead of a traceback
        return interruption(error) or report_failure(reason_of(error))
    return status if isinstance(status, int) else 0


def interruption(error: Exception) -> int:
    """The status if `error` only hides an interruption; 0 if it does not.

    A lock of Python's may fail if the handler of a signal raises an exception while it is taken.
    """
    hidden = error.__context__
    if isinstance(hidden, KeyboardInterrupt):
        return INTERRUPTED
    return hidden.exit_code if isinstance(hidden, typer.Exit) else 0


def report_usage(error: UsageError) -> int:
    """Report it; to a monitoring system on standard output, because it reads nothing else."""
    status = usage_status()
    if status == USAGE:
        display.say(sentence(error))
        return status
    line = display.printable(f"UNKNOWN - {sentence(error)}".replace("|", "/"))
    try:
        print(line, flush=True)
    except OSError as reason:
        return report_failure(reason_of(reason))
    return status


def report_failure(reason: str) -> int:
    """Report it on standard error; a monitoring system has to learn that nothing is known."""
    discard_output()
    display.say(reason)
    status = usage_status()
    return FAILED if status == USAGE else status


def usage_status() -> int:
    """The status for wrong usage of the command that the arguments of this process name."""
    return int(command_of(app).named(sys.argv[1:]).usage_status)


def discard_output() -> None:
    """Discard output that cannot be written, so that Python does not try again when it exits."""
    discard(sys.stdout.fileno())


def explain(error: OSError) -> None:
    """Report it, and do not try again to write what standard output did not take."""
    if error.filename == STANDARD_OUTPUT:
        discard_output()
    display.say(reason_of(error))
