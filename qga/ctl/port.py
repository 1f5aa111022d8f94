"""Data ports: raw bytes between a program of the host and one of the guest."""

import sys
from enum import Enum

import typer

from qga.client.ports import AtEnd, connect_port, exchange
from qga.ctl.app import command, faults
from qga.ctl.command import ADVANCED
from qga.ctl.guest_words import NOWHERE


class Action(str, Enum):
    """The subcommands of `qgactl port`."""

    CONNECT = "connect"


@command(ADVANCED, NOWHERE)
def port(
    context: typer.Context,
    action: Action = typer.Argument(
        ..., metavar="connect", help="Connect to the port.", show_default=False
    ),
    path: str = typer.Argument(
        ..., metavar="PATH", help="Path of the port's socket on the host.", show_default=False
    ),
    end: bool = typer.Option(
        False, "--end", help="Exit at the end of the input, once the guest has read all of it."
    ),
) -> None:
    """Connect standard input and output to a data port.

    Bytes are passed on unchanged in both directions. qgactl exits when QEMU closes the port, on
    ^C, and on ^D at the beginning of a line. If standard input is not a terminal, qgactl continues
    printing after the end of the input unless --end is given. Only one program on the host can
    use a port at a time.

    \b
    Examples:
      qgactl port connect /run/vm/greetings.sock
      qgactl port connect /run/vm/log.sock </dev/null >guest.log
      echo restart | qgactl port connect --end /run/vm/control.sock
    """
    # Programs in pipes often send nothing, and want to read on.
    at_end: AtEnd = "hang up" if end else "leave" if sys.stdin.isatty() else "go on"
    with faults(), connect_port(path) as link:
        exchange(link, sys.stdin.fileno(), show, at_end)


def show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
