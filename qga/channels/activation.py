"""A listening socket passed by the service manager (sd_listen_fds(3)).

As in qga.service.service_manager, systemd-python would take more memory than it saves lines.
"""

from __future__ import annotations

import os

from qga.errors import ChannelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

_FIRST_FD = 3
_ANY_CID = 2**32 - 1  # vsock(7)


def inherited_socket() -> socket | None:
    """The socket that was passed to this process, or None.

    The variables are removed from the environment, because they do not apply to children.
    Raises ChannelError if several were passed, or one that does not listen.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return None
    if count != "1":
        raise ChannelError(f"socket activation passed {count or 'no'} sockets; one is expected")
    from socket import SO_ACCEPTCONN, SOL_SOCKET, socket

    try:
        listener = socket(fileno=_FIRST_FD)
        if not listener.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
            raise ChannelError("socket activation passed a socket that does not listen")
    except OSError as error:
        raise ChannelError(f"socket activation passed no usable socket: {error}") from error
    listener.set_inheritable(False)
    return listener


def method_of(listener: socket) -> str:
    """The channel method for an inherited socket. Raises ChannelError if there is none."""
    from socket import AF_UNIX

    if listener.family == AF_UNIX:
        return "unix-listen"
    family = getattr(
        listener.family, "name", f"family {listener.family}"
    )  # Python has no name for some
    if family == "AF_VSOCK":
        return "vsock-listen"
    raise ChannelError(
        f"socket activation passed a socket of {family}; unix and vsock sockets can be served"
    )


def address_of(listener: socket) -> str:
    """Where an inherited socket listens, as in `path`. An abstract name begins with `@`."""
    from socket import AF_UNIX

    name = listener.getsockname()
    if listener.family == AF_UNIX:
        return os.fsdecode(name).replace("\0", "@", 1)
    cid, port = name
    return f"{-1 if cid == _ANY_CID else cid}:{port}"
