"""Hybrid vsock: a unix socket on the host that leads to the vsock ports of one guest.

Firecracker, Cloud Hypervisor and vhost-device-vsock have one. The client writes `CONNECT PORT`.
Once the guest has accepted, the answer is `OK` and a number; if nobody listens there, the
connection is closed.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
from collections.abc import Callable

from qga.client.errors import ConnectError
from qga.client.sockets import PERMISSION, connect_unix
from qga.client.waits import wait_for_events

Check = Callable[[socket.socket], None]
"""Looks at who listens. ConnectError refuses."""

# Bytes of `OK 4294967295`, and then some.
LONGEST_ANSWER = 32
ACCEPTED = re.compile(rb"OK \d+\r?\n")

ADVICE = {
    errno.ENOENT: "is the guest running, and does it have a vsock device with its socket there?",
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.ECONNREFUSED: "nobody listens there: start the guest",
    errno.EAGAIN: "too many clients wait there already: close some of them",
}
NO_LISTENER = "nothing listens on this port: start an agent in the guest with --method vsock-listen"
NO_VSOCK = (
    "is this the vsock socket of Firecracker, Cloud Hypervisor or vhost-device-vsock? "
    "It did not answer CONNECT with OK"
)


def believe(_connection: socket.socket) -> None:
    """Whoever listens at a path that was given."""


def connect_hybrid(path: str, port: int, deadline: float, check: Check = believe) -> socket.socket:
    """Connect to a port of the guest whose vsock socket is at `path`; it does not block.

    check: may refuse who listens at the path, before anything is sent.
    ConnectError if that fails, TimeoutError if nothing is answered by `deadline`.
    """
    address = f"hvsock:{path}:{port}"
    sock = connect_unix(address, path, ADVICE)
    try:
        check(sock)
        answer = _asked(sock, b"CONNECT %d\n" % port, deadline)
    except ConnectError:
        sock.close()
        raise
    except ConnectionError:
        answer = b""
    except BaseException:
        sock.close()
        raise
    if ACCEPTED.fullmatch(answer):
        return sock
    sock.close()
    if not answer:
        raise ConnectError(address, NO_LISTENER)
    raise ConnectError(address, f"{NO_VSOCK}, but with {os.fsdecode(answer)!a}")


def _asked(sock: socket.socket, question: bytes, deadline: float) -> bytes:
    """Send a line and return the next one, of LONGEST_ANSWER bytes at most. What follows is the
    guest's, and stays where it is."""
    sock.send(question, socket.MSG_NOSIGNAL)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < LONGEST_ANSWER:
        wait_for_events(poll, deadline, NO_VSOCK)
        byte = sock.recv(1)
        if not byte:
            break
        answer += byte
    return answer
