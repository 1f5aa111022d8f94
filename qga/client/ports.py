"""The host's end of a data port: the socket of QEMU's chardev, and raw bytes through it.

QEMU serves one program at a time: a second one is connected, but hears nothing until the first has
gone. What is sent before a program of the guest opens the port waits; what comes while nobody is
connected is lost.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Literal

from qga.client.sockets import PERMISSION, connect_unix

# As much as a unix socket holds by default (net.core.wmem_default), and then some.
CHUNK = 256 * 1024

ADVICE = {
    errno.ENOENT: "is the guest running, and does it have a port with its socket at this path?",
    errno.EACCES: PERMISSION,
    errno.ECONNREFUSED: "nobody listens there: start the guest",
    errno.EAGAIN: "other programs use this port and wait for it already: end one of them",
}


def connect_port(path: str) -> socket.socket:
    """A connection to the port whose socket is at `path`. Raises ConnectError."""
    return connect_unix(f"unix:{path}", path, ADVICE)


AtEnd = Literal["go on", "leave", "hang up"]
"""What to do when all is sent: go on receiving; leave, though QEMU may not have read all of it;
or hang up, so that QEMU closes the port when it has, which takes a guest that reads."""


def exchange(
    link: socket.socket, source: int, take: Callable[[bytes], object], at_end: AtEnd
) -> None:
    """Send what can be read from the descriptor `source`, and give `take` what comes.

    Returns when the port is closed at the other end, or when it is left.
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
                poll.unregister(source)  # until this is sent
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
    except BrokenPipeError:  # what has come before is still to be read
        return len(data)
