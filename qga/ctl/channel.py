"""What makes a port of a guest: to be added to its definition."""

import shlex
import sys
from enum import Enum

import typer

from qga.client.hosts.channel import DATA_PORT, Channel, number_of
from qga.client.hosts.processes import AGENT_PORT
from qga.ctl import display
from qga.ctl.app import JSON, Settings, app

LIBVIRT_HEAD = (
    "libvirt: add within <devices> (virsh edit DOMAIN), without the controller if there is one"
)
QEMU_HEAD = "QEMU: add to its command line, without the first line if that device is there"


class Form(str, Enum):
    """What to write."""

    XML = "xml"
    QEMU = "qemu"
    BOTH = "both"


@app.command()
def channel(
    context: typer.Context,
    name: str = typer.Argument(
        "", metavar="[NAME]", help=f"The port's name; {AGENT_PORT} if none.", show_default=False
    ),
    data: bool = typer.Option(False, "--data", help=f"A data port: {DATA_PORT} without a name."),
    number: int = typer.Option(
        0, metavar="N", help="Its place on the controller, 1 to 30.", show_default=False
    ),
    socket: str = typer.Option(
        "", metavar="PATH", help="The socket on the host; libvirt chooses one if there is none."
    ),
    form: Form = typer.Option(
        Form.BOTH,
        "--format",
        help="For libvirt, for QEMU, or both (the default).",
        show_default=False,
    ),
    as_json: bool = JSON,
) -> None:
    """Print what gives a guest a port: libvirt's XML, and QEMU's arguments.

    By default the agent's. A data port is for other programs: they find it in the guest as
    /dev/virtio-ports/NAME, and on the host at its socket.

    \b
    Examples:
      qgactl channel
      qgactl channel --socket /run/web-agent.sock --format qemu
      qgactl channel --data --format xml
      qgactl channel com.example.log --number 5 --socket /run/web-log.sock
    """
    settings: Settings = context.obj
    wanted = name or (DATA_PORT if data else AGENT_PORT)
    port = Channel(wanted, number or number_of(wanted), socket)
    try:
        port.check()
    except ValueError as error:
        raise typer.BadParameter(display.printable(str(error))) from None
    qemu = port if socket else port._replace(socket=f"/run/{wanted}.sock")
    if settings.json:
        both = {"libvirt": port.libvirt_xml(), "qemu": qemu.qemu_arguments()}
        place = {"name": port.name, "number": port.number, "socket": socket or None}
        print(display.compact_json({**place, **both}))
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
    """For a shell, an option on each line."""
    pairs = zip(arguments[::2], arguments[1::2])
    return " \\\n".join(f"{flag} {shlex.quote(value)}" for flag, value in pairs)
