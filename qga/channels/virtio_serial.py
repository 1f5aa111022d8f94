"""A virtio-serial port: `/dev/virtio-ports/NAME`, or any `/dev/vportNpM`.

qga.ports describes what Linux's virtio_console does. Without a host it reports a hang-up for ever,
but only once to a watcher of edges: this is why sessions are edge-triggered.
"""

from __future__ import annotations

import os

from qga import ports
from qga.channels.device import DeviceChannel


class VirtioSerial(DeviceChannel):
    @property
    def has_client(self) -> bool:
        try:
            return self._fd is not None and ports.host_connected(self._fd)
        except OSError:  # unplugged
            return False

    def do_open_device(self) -> int:
        return os.open(find_port(self.config.path), os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)


def find_port(path: str) -> str:
    """The device for `path`; where udev has made no link, the port of that name."""
    if os.path.exists(path):
        return path
    try:
        return ports.find(path).device
    except OSError:
        return path
