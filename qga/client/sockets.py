"""Sockets to agents: connecting, and saying well why that did not work."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from qga.client.errors import ConnectError
from qga.client.transports import wait_for_events

# sun_path of unix(7), less the zero at its end.
LONGEST_PATH = 107

# The column St of /proc/net/unix (SS_… of linux/net.h) for the listener's end of a connection:
# one that waits to be accepted, one that was.
WAITING, CONNECTED = "02", "03"

PERMISSION = "run this as root, or as the user who owns the socket and its directories"
NO_VSOCK = "this machine has no vsock: modprobe vhost_vsock"
NO_GUEST = "is a guest with this CID running, and does it have a device vhost-vsock-pci?"
NO_LISTENER = "no agent listens there: start one in the guest with --method vsock-listen"

UNIX_ADVICE = {
    errno.ENOENT: (
        "is the guest running, and does it have a channel org.qemu.guest_agent.0 at this path? "
        "(qgactl list: the guests that run here; qgactl channel: how to add it)"
    ),
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.ECONNREFUSED: (
        "nobody listens there: start the guest (or the agent, if it is the one to listen)"
    ),
    errno.EAGAIN: "too many clients wait there already: close the one that is being served",
}

VSOCK_ADVICE = {
    errno.EAFNOSUPPORT: NO_VSOCK,
    errno.ENODEV: f"{NO_GUEST} Or {NO_VSOCK}",
    errno.ETIMEDOUT: NO_GUEST,
    errno.ECONNRESET: NO_LISTENER,
    errno.ECONNREFUSED: NO_LISTENER,
}


def connect_unix(address: str, path: str, advice: Mapping[int, str] = UNIX_ADVICE) -> socket.socket:
    """Connect, or fail at once: a socket whose queue is full may stay so for ever."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        with short_enough(path) as place:
            sock.connect(place)
    except OSError as error:
        sock.close()
        raise ConnectError(address, explained(error, advice)) from None
    return sock


@contextmanager
def short_enough(path: str) -> Iterator[str]:
    """A path that a socket's address has room for: through a descriptor of its directory."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def connect_vsock(cid: int, port: int, deadline: float) -> socket.socket:
    """TimeoutError when the guest has said neither yes nor no by the deadline."""
    address = f"vsock:{cid}:{port}"
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectError(address, explained(error, VSOCK_ADVICE)) from None
    try:
        code = connected_by(deadline, sock, (cid, port))
        if code:
            raise ConnectError(address, explained(OSError(code, os.strerror(code)), VSOCK_ADVICE))
    except BaseException:
        sock.close()
        raise
    return sock


def connected_by(deadline: float, sock: socket.socket, place: tuple[int, int]) -> int:
    """Connect; the error's number, or 0."""
    sock.setblocking(False)
    code = sock.connect_ex(place)
    if code != errno.EINPROGRESS:
        return code
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    wait_for_events(poll, deadline, "the guest has not taken the connection")
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def explained(error: OSError, advice: Mapping[int, str]) -> str:
    """The system's error text, and advice."""
    text = os.strerror(error.errno) if error.errno else str(error)
    tip = advice.get(error.errno or 0)
    return f"{text}: {tip}" if tip else text


def connected_paths(states: Collection[str] = (WAITING, CONNECTED)) -> list[str]:
    """The path of each unix socket here that a client is connected to, once for each client."""
    try:
        table = Path("/proc/net/unix").read_text(errors="surrogateescape")
    except OSError:
        return []
    rows = (line.split(maxsplit=7) for line in table.splitlines())
    return [row[7] for row in rows if len(row) == 8 and row[5] in states]


def connections_to(path: str, connected: list[str]) -> int:
    """How many clients a socket has, by the result of `connected_paths`.

    Of a channel's clients QEMU serves one; the others wait, and hear nothing.
    """
    name, real = os.path.basename(path), os.path.realpath(path)
    same_name = (other for other in connected if os.path.basename(other) == name)
    return sum(os.path.realpath(other) == real for other in same_name)
