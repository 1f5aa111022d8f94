"""The configuration of a channel, for libvirt and for QEMU's command line.

Both describe the same things: a controller, a socket on the host, and a virtio-serial port that
the guest finds by its name in /dev/virtio-ports.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree import ElementTree as Xml

from qga.client.hosts.processes import AGENT_PORT
from qga.client.sockets import LONGEST_PATH

DATA_PORT = "org.qga.data.0"

# A controller has 31 ports; QEMU reserves port 0 for a console.
FIRST_NUMBER, LAST_NUMBER = 1, 30

CONTROLLER = "virtio-serial0"


class Channel(NamedTuple):
    """A virtio-serial port.

    number: of the port on its controller. socket: a path on the host; "" if libvirt chooses it.
    """

    name: str = AGENT_PORT
    number: int = FIRST_NUMBER
    socket: str = ""

    def check(self) -> None:
        """Raise ValueError if neither libvirt nor QEMU would accept it."""
        if not self.name or not self.name.isprintable() or "/" in self.name:
            raise ValueError(f"{self.name!r} is not the name of a port, such as {DATA_PORT}")
        if not FIRST_NUMBER <= self.number <= LAST_NUMBER:
            raise ValueError(f"the number of a port is {FIRST_NUMBER} to {LAST_NUMBER}")
        if self.socket and not (self.socket.startswith("/") and self.socket.isprintable()):
            raise ValueError(f"{self.socket!r} is not an absolute path, such as /run/web.sock")
        if len(self.socket.encode()) > LONGEST_PATH:
            raise ValueError(f"the path of a socket has at most {LONGEST_PATH} bytes")

    def qemu_arguments(self) -> list[str]:
        """The options to add to QEMU's command line. QEMU needs the path of the socket."""
        chardev = {
            "id": f"charchannel{self.number}",
            "path": self.socket,
            "server": "on",
            "wait": "off",
        }
        port = {
            "bus": f"{CONTROLLER}.0",
            "nr": str(self.number),
            "chardev": chardev["id"],
            "id": f"channel{self.number}",
            "name": self.name,
        }
        return [
            *("-device", option("virtio-serial-pci", {"id": CONTROLLER})),
            *("-chardev", option("socket", chardev)),
            *("-device", option("virtserialport", port)),
        ]

    def libvirt_xml(self) -> str:
        """The elements to add to the <devices> of a domain."""
        controller = Xml.Element("controller", type="virtio-serial", index="0")
        channel = Xml.Element("channel", type="unix")
        if self.socket:
            Xml.SubElement(channel, "source", mode="bind", path=self.socket)
        Xml.SubElement(channel, "target", type="virtio", name=self.name)
        place = {"type": "virtio-serial", "controller": "0", "bus": "0", "port": str(self.number)}
        Xml.SubElement(channel, "address", place)
        return "\n".join(map(indented, (controller, channel)))


def number_of(name: str) -> int:
    """A number for a port of this name: 1 for the agent, N + 2 for org.qga.data.N."""
    if name == AGENT_PORT:
        return FIRST_NUMBER
    last = re.search(r"\.([0-9]{1,9})$", name)
    return FIRST_NUMBER + 1 + (int(last[1]) if last else 0)


def option(first: str, rest: dict[str, str]) -> str:
    """The value of a QEMU option. Commas are doubled, because a single one separates keys."""
    return ",".join([first, *(f"{key}={value.replace(',', ',,')}" for key, value in rest.items())])


def indented(element: Xml.Element) -> str:
    Xml.indent(element)
    return Xml.tostring(element, encoding="unicode").replace(" />", "/>")
