"""Data ports: raw bytes between a program of the host and one of the guest."""

import sys
from enum import Enum

import typer

from qga.client.ports import AtEnd, connect_port, exchange
from qga.ctl.app import JSON, app, faults


class Action(str, Enum):
    """What `qgactl port` does."""

    CONNECT = "connect"


@app.command()
def port(
    context: typer.Context,
    action: Action = typer.Argument(..., help="What to do.", show_default=False),
    path: str = typer.Argument(
        ..., metavar="PATH", help="The socket of the port.", show_default=False
    ),
    end: bool = typer.Option(
        False, "--end", help="End with the input, when the guest has taken all of it."
    ),
    as_json: bool = JSON,
) -> None:
    """Print what a program of the guest writes to a data port, and send what is typed.

    Raw bytes both ways, whatever they are. It ends when QEMU closes the port, on ^C, and on ^D
    at the beginning of a line; without a terminal, and without --end, it goes on printing after
    the end of the input. Only one program of the host can use a port at a time.

    \b
    Examples:
      qgactl port connect /run/vm/greetings.sock
      qgactl port connect /run/vm/log.sock </dev/null >guest.log
      echo restart | qgactl port connect --end /run/vm/control.sock
    """
    at_end: AtEnd = "hang up" if end else "leave" if sys.stdin.isatty() else "go on"
    with faults(), connect_port(path) as link:
        exchange(link, sys.stdin.fileno(), show, at_end)


def show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
