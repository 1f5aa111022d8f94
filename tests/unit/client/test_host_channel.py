"""A channel written down for libvirt and for QEMU, from one model."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from qga.client.hosts.channel import Channel, number_of

SOCKET = "/run/web.sock"


def test_the_agents_channel() -> None:
    assert Channel(socket=SOCKET).qemu_arguments() == [
        "-device",
        "virtio-serial-pci,id=virtio-serial0",
        "-chardev",
        "socket,id=charchannel1,path=/run/web.sock,server=on,wait=off",
        "-device",
        "virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel1,id=channel1,"
        "name=org.qemu.guest_agent.0",
    ]
    assert Channel().libvirt_xml() == (
        '<controller type="virtio-serial" index="0"/>\n'
        '<channel type="unix">\n'
        '  <target type="virtio" name="org.qemu.guest_agent.0"/>\n'
        '  <address type="virtio-serial" controller="0" bus="0" port="1"/>\n'
        "</channel>"
    )


def test_a_data_port_with_a_socket_that_needs_quotes() -> None:
    channel = Channel("org.qga.data.0", 2, "/run/a,b'<&>.sock")
    assert "socket,id=charchannel2,path=/run/a,,b'<&>.sock,server=on,wait=off" in (
        channel.qemu_arguments()
    )
    devices = ElementTree.fromstring(f"<devices>{channel.libvirt_xml()}</devices>")
    source, address = devices.find("channel/source"), devices.find("channel/address")
    assert source is not None
    assert source.attrib == {"mode": "bind", "path": "/run/a,b'<&>.sock"}
    assert address is not None
    assert address.get("port") == "2"


@pytest.mark.parametrize(
    ("name", "number"),
    [("org.qemu.guest_agent.0", 1), ("org.qga.data.0", 2), ("org.qga.data.3", 5), ("log", 2)],
)
def test_ports_have_places_of_their_own(name: str, number: int) -> None:
    assert number_of(name) == number


@pytest.mark.parametrize(
    ("channel", "complaint"),
    [
        (Channel(""), "is not the name of a port"),
        (Channel("a/b"), "is not the name of a port"),
        (Channel("a\nb"), "is not the name of a port"),
        (Channel(number=0), "number of a port is 1 to 30"),
        (Channel(number=31), "number of a port is 1 to 30"),
        (Channel(socket="web.sock"), "is not an absolute path"),
        (Channel(socket="/run/\n"), "is not an absolute path"),
        (Channel(socket="/" + 54 * "ä"), "at most 107 bytes"),
    ],
)
def test_what_neither_takes_is_refused(channel: Channel, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        channel.check()
