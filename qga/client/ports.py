"""The host's end of a data port: raw bytes through the socket of QEMU's chardev.

QEMU serves one program at a time. A second one can connect, but receives nothing until the first
has disconnected. Bytes sent before a program of the guest opens the port wait; bytes from the guest
while nobody is connected are lost.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Literal

from qga.client.sockets import PERMISSION, connect_unix

# More than a unix socket holds by default (net.core.wmem_default: 208 KiB).
CHUNK = 256 * 1024

ADVICE = {
    errno.ENOENT: "is the guest running, and does it have a port with its socket at this path?",
    errno.EACCES: PERMISSION,
    errno.ECONNREFUSED: "nobody listens there: start the guest",
    errno.EAGAIN: "other programs are using this port and waiting for it: end one of them",
}


def connect_port(path: str) -> socket.socket:
    """A connection to the port whose socket is at `path`. Raises ConnectError."""
    return connect_unix(f"unix:{path}", path, ADVICE)


AtEnd = Literal["go on", "leave", "hang up"]
"""What to do when everything is sent: go on receiving; leave, although QEMU may not have read all
of it; or hang up, so that QEMU closes the port once the guest has read everything."""


def exchange(
    link: socket.socket, source: int, take: Callable[[bytes], object], at_end: AtEnd
) -> None:
    """Send what can be read from the descriptor `source`, and call `take` with what is received.

    Returns when the other end closes the port, or as `at_end` demands.
    """
    unsent = b""
    link.setblocking(False)
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(link, select.POLLIN)
    while True:
        for fd, events in poll.poll():
            if fd == source:
                unsent = os.read(source, CHUNK)
                poll.unregister(source)  # until this is sent, so that memory stays bounded
                if not unsent and at_end == "leave":
                    return
                if not unsent and at_end == "hang up":
                    link.shutdown(socket.SHUT_WR)
                continue
            if events & ~select.POLLOUT:
                received = _receive(link)
                if not received:
                    return
                take(received)
        if unsent:
            unsent = unsent[_send(link, unsent) :]
            poll.register(link, select.POLLIN | (select.POLLOUT if unsent else 0))
            if not unsent:
                poll.register(source, select.POLLIN)


def _receive(link: socket.socket) -> bytes:
    try:
        return link.recv(CHUNK)
    except ConnectionResetError:
        return b""


def _send(link: socket.socket, data: bytes) -> int:
    try:
        return link.send(data, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0
    except BrokenPipeError:  # bytes received earlier are still to be read
        return len(data)
