"""The definition of a port, for libvirt and for QEMU."""

import shlex
import sys
from enum import Enum
from typing import Optional

import typer

from qga.client.hosts.channel import DATA_PORT, Channel, number_of
from qga.client.hosts.processes import AGENT_PORT
from qga.ctl import display
from qga.ctl.app import command
from qga.ctl.command import TROUBLESHOOT
from qga.ctl.guest_words import NOWHERE
from qga.ctl.settings import Settings

LIBVIRT_HEAD = (
    "libvirt: add to <devices> (virsh edit DOMAIN); omit the controller if there is one already"
)
QEMU_HEAD = "QEMU: add to the command line; omit the first line if that device is there already"


class Form(str, Enum):
    """What to print."""

    XML = "xml"
    QEMU = "qemu"
    BOTH = "both"


@command(TROUBLESHOOT, NOWHERE)
def channel(
    context: typer.Context,
    name: str = typer.Argument(
        "", metavar="[NAME]", help=f"Name of the port (default: {AGENT_PORT}).", show_default=False
    ),
    data: bool = typer.Option(
        False, "--data", help=f"Print a data port (default name: {DATA_PORT})."
    ),
    number: Optional[int] = typer.Option(
        None, metavar="N", help="Number of the port on its controller, 1 to 30.", show_default=False
    ),
    socket: str = typer.Option(
        "",
        metavar="PATH",
        help="Path of the socket on the host (default for libvirt: its own choice).",
    ),
    form: Form = typer.Option(
        Form.BOTH,
        "--format",
        metavar="xml|qemu|both",
        help="Print XML for libvirt, options for QEMU, or both (the default).",
        show_default=False,
    ),
) -> None:
    """Print the libvirt XML and QEMU options that add an agent port.

    A data port is for other programs. They find it in the guest as /dev/virtio-ports/NAME and on
    the host at its socket.

    \b
    Examples:
      qgactl channel
      qgactl channel --socket /run/web-agent.sock --format qemu
      qgactl channel --data --format xml
      qgactl channel com.example.log --number 5 --socket /run/web-log.sock
    """
    settings: Settings = context.obj
    wanted = name or (DATA_PORT if data else AGENT_PORT)
    port = Channel(wanted, number_of(wanted) if number is None else number, socket)
    try:
        port.check()
    except ValueError as error:
        raise typer.BadParameter(display.printable(str(error))) from None
    qemu = port if socket else port._replace(socket=f"/run/{wanted}.sock")
    if settings.structured:
        both = {"libvirt": port.libvirt_xml(), "qemu": qemu.qemu_arguments()}
        place = {"name": port.name, "number": port.number, "socket": socket or None}
        settings.print({**place, **both})
        return
    texts = {
        Form.XML: (LIBVIRT_HEAD, port.libvirt_xml()),
        Form.QEMU: (QEMU_HEAD, command_line(qemu.qemu_arguments())),
    }
    if form is Form.BOTH:
        sys.stdout.write("\n".join(f"# {head}\n{text}\n" for head, text in texts.values()))
    else:
        sys.stdout.write(f"{texts[form][1]}\n")


def command_line(arguments: list[str]) -> str:
    """Shell words, an option on each line."""
    pairs = zip(arguments[::2], arguments[1::2])
    return " \\\n".join(f"{flag} {shlex.quote(value)}" for flag, value in pairs)
