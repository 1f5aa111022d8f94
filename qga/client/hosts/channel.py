"""A channel as it is written down: for libvirt, and for QEMU's command line.

Both come from one `Channel`, so they cannot differ: a controller, a socket on the host, and a
virtio-serial port that the guest finds by its name in /dev/virtio-ports.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree import ElementTree as Xml

from qga.client.hosts.processes import AGENT_PORT
from qga.client.sockets import LONGEST_PATH

DATA_PORT = "org.qga.data.0"

# A controller has 31 ports, and leaves the first to a console.
FIRST_NUMBER, LAST_NUMBER = 1, 30

CONTROLLER = "virtio-serial0"


class Channel(NamedTuple):
    """The port `name`, the `number`th of its controller; `socket` is a path on the host, or ""
    for one of libvirt's choice.
    """

    name: str = AGENT_PORT
    number: int = FIRST_NUMBER
    socket: str = ""

    def check(self) -> None:
        """ValueError for what neither takes."""
        if not self.name or not self.name.isprintable() or "/" in self.name:
            raise ValueError(f"{self.name!r} is not the name of a port, such as {DATA_PORT}")
        if not FIRST_NUMBER <= self.number <= LAST_NUMBER:
            raise ValueError(f"a port has a number from {FIRST_NUMBER} to {LAST_NUMBER}")
        if self.socket and not (self.socket.startswith("/") and self.socket.isprintable()):
            raise ValueError(
                f"{self.socket!r} is not a path from the root on, such as /run/web.sock"
            )
        if len(self.socket.encode()) > LONGEST_PATH:
            raise ValueError(f"the path of a socket has at most {LONGEST_PATH} bytes")

    def qemu_arguments(self) -> list[str]:
        """What is to be added to QEMU's command line. QEMU chooses no path: the socket must be
        given.
        """
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
        """The elements to be added to a domain's <devices>."""
        controller = Xml.Element("controller", type="virtio-serial", index="0")
        channel = Xml.Element("channel", type="unix")
        if self.socket:
            Xml.SubElement(channel, "source", mode="bind", path=self.socket)
        Xml.SubElement(channel, "target", type="virtio", name=self.name)
        place = {"type": "virtio-serial", "controller": "0", "bus": "0", "port": str(self.number)}
        Xml.SubElement(channel, "address", place)
        return "\n".join(map(indented, (controller, channel)))


def number_of(name: str) -> int:
    """A place for a port of this name: the agent's is the first, org.qga.data.N two places on."""
    if name == AGENT_PORT:
        return FIRST_NUMBER
    last = re.search(r"\.(\d+)$", name)
    return FIRST_NUMBER + 1 + (int(last[1]) if last else 0)


def option(first: str, rest: dict[str, str]) -> str:
    """A value of QEMU's options, where a comma is written twice."""
    return ",".join([first, *(f"{key}={value.replace(',', ',,')}" for key, value in rest.items())])


def indented(element: Xml.Element) -> str:
    Xml.indent(element)
    return Xml.tostring(element, encoding="unicode").replace(" />", "/>")
