"""The ground that qgactl's commands stand on: its options, its errors and exit statuses.

Statuses: 0 done; 1 the agent answered with an error, or not as it should; 2 wrong usage;
3 cannot connect; 4 no answer in time; 130 interrupted. `exec` ends as the guest's program
did, and with 125 for any fault of ours, so that a script can tell the two apart.

No `from __future__ import annotations` in the modules with commands: on Python 3.9 typer finds
its options only in annotations that are not strings. And no Annotated options: Debian 12 has
typer 0.7, which has them as defaults only.
"""

import io
import math
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple, Optional, TypeVar

import typer

from qga.client.agent import GuestAgent
from qga.client.data_ports import DataPorts
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandNotFound,
    ConnectError,
    GuestFrozen,
)
from qga.client.shapes import plain
from qga.ctl import display
from qga.ctl.units import duration, moment
from qga.ctl.usage import Expected, UsageError, command_of, sentence
from qga.ctl.values import pairs
from qga.version import __version__

T = TypeVar("T")

FAILED, USAGE, UNREACHABLE, TIMED_OUT = 1, 2, 3, 4
EXEC_FAILED = 125  # as docker and env(1) have it
INTERRUPTED = 128 + signal.SIGINT

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
    data_ports: Mapping[str, str] = MappingProxyType({})

    def agent(self) -> GuestAgent:
        if not self.address:
            raise typer.BadParameter(
                "no guest given: use --connect NAME (see `qgactl list`) or set QGA_CONNECT"
            )
        try:
            return GuestAgent(self.address, self.timeout)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    def ports(self) -> DataPorts:
        """The data ports of the guest, as far as their sockets are known."""
        check_sockets(self.data_ports)
        return DataPorts(self.address, self.data_ports)


def check_sockets(data_ports: Mapping[str, str]) -> None:
    for name, path in data_ports.items():
        if path and not is_socket(path):
            shown = display.printable(f"{name}={path}")
            raise typer.BadParameter(f"--data-port {shown}: there is no socket at this path")


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def positive(seconds: float) -> float:
    if not seconds > 0:
        raise Expected("use a number of seconds greater than 0")
    return seconds


def finite(seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise Expected("use a finite number of seconds greater than 0")
    return seconds


def ask_for_json(context: typer.Context, wanted: bool) -> None:
    if wanted and isinstance(context.obj, Settings):
        context.obj = context.obj._replace(json=True)


# The last parameter of each command, so that --json may stand behind the command, too.
JSON: bool = typer.Option(
    False, "--json", callback=ask_for_json, help="Write JSON, for programs.", show_default=False
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
        envvar="QGA_CONNECT",
        metavar="ADDRESS",
        help="The agent: NAME of a guest here, unix:PATH, vsock:CID:PORT, "
        "libvirt:[URI/]DOMAIN, proxmox:VMID.",
    ),
    timeout: float = typer.Option(
        5.0,
        metavar="SECONDS",
        callback=positive,
        help="How long to wait for each answer of the agent (inf: for ever).",
    ),
    data_ports: Optional[list[str]] = typer.Option(
        None,
        "--data-port",
        envvar="QGA_DATA_PORT",
        metavar="NAME=SOCKET",
        help="The socket of a data port that is not where libvirt puts it; NAME= leaves that port "
        "alone; may be repeated.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Write JSON, for programs."),
    version: bool = typer.Option(
        False, "-V", "--version", callback=show_version, is_eager=True, help="Show it."
    ),
) -> None:
    """Talk to the QEMU guest agent of a guest, from its host.

    \b
    Examples:
      qgactl list
      qgactl --connect web ping
      qgactl --connect libvirt:qemu+ssh://root@host/system/web info
      export QGA_CONNECT=unix:/run/web.sock
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
    sockets = pairs(data_ports or [], "NAME=SOCKET")
    source = context.get_parameter_source("data_ports")
    if source and source.name == "COMMANDLINE":  # the environment may be meant for other commands
        check_sockets(sockets)
    context.obj = Settings(connect, timeout, as_json, sockets)


def answer(
    context: typer.Context, question: Callable[[GuestAgent], T], show: Callable[[T], None]
) -> None:
    """Ask the agent, and show what it says, or write that as JSON."""
    settings: Settings = context.obj
    with faults(), settings.agent() as agent:
        value = question(agent)
    if settings.json:
        print(display.compact_json(plain(value)))
    else:
        show(value)


@contextmanager
def faults(status: int = 0) -> Iterator[None]:
    """Errors of the agent as a line on stderr and an exit status: `status`, or by their kind."""
    try:
        yield
    except GuestFrozen as error:
        display.say(f"{error.address} is frozen{since(error.seconds)}: qgactl thaw")
        raise typer.Exit(status or FAILED) from None
    except AgentError as error:
        display.say(": ".join(filter(None, (str(error), advice(error)))))
        raise typer.Exit(status or status_of(error)) from None


def since(seconds: Optional[float]) -> str:
    if seconds is None:
        return ""
    return f" since {moment(time.time() - seconds)} ({duration(seconds)} ago)"


def advice(error: AgentError) -> str:
    """What to try when the agent refuses a command as such."""
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command_of(app)(prog_name="qgactl", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        display.say(sentence(error))
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as error:
        discard_output()
        display.say(display.reason_of(error))
        return FAILED
    except Exception as error:  # whatever it is, the user gets a line, not a traceback
        discard_output()
        display.say(f"{type(error).__name__}: {error}")
        return FAILED
    return status if isinstance(status, int) else 0


def discard_output() -> None:
    """It cannot be written: keep the interpreter from trying once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
