"""Connects to the sockets of agents, with errors that suggest what to do."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from qga.client.errors import ConnectError, QueueFull
from qga.client.waits import wait_for_events

# sun_path of unix(7) without the final NUL.
LONGEST_PATH = 107

# The column St of /proc/net/unix (SS_… of linux/net.h) for the listener's end of a connection that
# waits to be accepted, and of one that was accepted.
WAITING, CONNECTED = "02", "03"

PERMISSION = "run this as root, or as the user who owns the socket and its directories"
NO_SOCKET = "this is not a socket; qgactl list shows those of the guests of this host"
NO_VSOCK = "this machine has no vsock: modprobe vhost_vsock"
NO_GUEST = "is a guest with this CID running, and does it have a device vhost-vsock-pci?"
NO_LISTENER = "no agent listens there: start one in the guest with --method vsock-listen"

# Of accept(2). Until some are free again, the connection stays where it is.
NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# Seconds.
PAUSE_WITHOUT_RESOURCES = 0.1

UNIX_ADVICE = {
    errno.ENOENT: (
        "is the guest running, and does it have a channel org.qemu.guest_agent.0 at this path? "
        "(qgactl list shows the guests of this host, qgactl channel how to add the channel)"
    ),
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.ECONNREFUSED: (
        "nobody listens there: start the guest (or the agent, if the socket is its own)"
    ),
    errno.EAGAIN: "too many clients are waiting already: close the one that is being served",
}

VSOCK_ADVICE = {
    errno.EAFNOSUPPORT: NO_VSOCK,
    errno.ENODEV: f"{NO_GUEST} Or {NO_VSOCK}",
    errno.ETIMEDOUT: NO_GUEST,
    errno.ECONNRESET: NO_LISTENER,
    errno.ECONNREFUSED: NO_LISTENER,
}


def connect_unix(address: str, path: str, advice: Mapping[int, str] = UNIX_ADVICE) -> socket.socket:
    """Connect, or fail at once: the queue of a socket may stay full for ever."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectError(address, explained(error, {})) from None
    sock.setblocking(False)
    try:
        with short_enough(path) as place:
            sock.connect(place)
    except OSError as error:
        sock.close()
        refused = error.errno == errno.ECONNREFUSED
        reason = NO_SOCKET if refused and not is_socket(path) else explained(error, advice)
        kind = QueueFull if error.errno == errno.EAGAIN else ConnectError
        raise kind(address, reason) from None
    return sock


def is_socket(path: str) -> bool:
    """Whether there is a socket at the path, as far as can be seen."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True


@contextmanager
def short_enough(path: str) -> Iterator[str]:
    """A path that fits into the address of a socket: by a descriptor of its directory if needed."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def connect_vsock(cid: int, port: int, deadline: float) -> socket.socket:
    """Connect. Raises TimeoutError if the guest has not replied by the deadline."""
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
    """Connect. Returns an errno, or 0."""
    sock.setblocking(False)
    code = sock.connect_ex(place)
    if code != errno.EINPROGRESS:
        return code
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    wait_for_events(poll, deadline, "the guest has not accepted the connection")
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def pause_without_resources(error: OSError) -> None:
    """Call this when accept(2) has failed: it could be tried again at once, and without end."""
    if error.errno in NO_RESOURCES:
        time.sleep(PAUSE_WITHOUT_RESOURCES)


def explained(error: OSError, advice: Mapping[int, str]) -> str:
    """The system's error text, and advice."""
    text = os.strerror(error.errno) if error.errno else str(error)
    tip = advice.get(error.errno or 0)
    return f"{text}: {tip}" if tip else text


def connected_paths(states: Collection[str] = (WAITING, CONNECTED)) -> list[str]:
    """The path of each unix socket that a client is connected to, once for each client."""
    # psutil would look through the descriptors of all processes as well.
    try:
        table = Path("/proc/net/unix").read_text(errors="surrogateescape")
    except OSError:
        return []
    rows = (line.split(maxsplit=7) for line in table.splitlines())
    return [row[7] for row in rows if len(row) == 8 and row[5] in states]


def connections_to(path: str, connected: list[str]) -> int:
    """How many clients a socket has, according to the result of `connected_paths`.

    QEMU serves one client of a channel; the others wait and receive nothing.
    """
    name, real = os.path.basename(path), os.path.realpath(path)
    same_name = (other for other in connected if os.path.basename(other) == name)
    return sum(os.path.realpath(other) == real for other in same_name)
