"""A virtio-serial port: `/dev/virtio-ports/NAME`, or any `/dev/vportNpM`.

Facts of Linux's virtio_console that the agent leans on: a read gives one buffer of at most
4096 bytes; a read without a host gives 0 bytes, after an unplug ENODEV; a write takes at most
32 KiB; without a host poll reports a hang-up for ever, edge-triggered just once.
"""

from __future__ import annotations

import os

from qga.channels.device import DeviceChannel

_LINKS = "/dev/virtio-ports/"  # made by udev
_PORTS = "/sys/class/virtio-ports"


class VirtioSerial(DeviceChannel):
    def open_device(self) -> int:
        return os.open(find_port(self.config.path), os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)


def find_port(path: str) -> str:
    """The device for `path`; where udev has made no link, the port of that name."""
    if path.startswith(_LINKS) and not os.path.exists(path):
        device = port_named(path[len(_LINKS) :])
        if device is not None:
            return device
    return path


def port_named(name: str) -> str | None:
    """`/dev/vportNpM` of the port that the host gave this name."""
    try:
        ports = os.listdir(_PORTS)
    except OSError:
        return None
    for port in sorted(ports):
        try:
            with open(f"{_PORTS}/{port}/name", encoding="ascii", errors="replace") as file:
                if file.read().rstrip("\n") == name:
                    return f"/dev/{port}"
        except OSError:  # it went away, or has no name
            continue
    return None
