"""A unix socket of our own.

A socket file that nobody listens on is left over from an earlier agent, and replaced. Any other
file at the path makes the channel fail. The socket file is removed at the end.
"""

from __future__ import annotations

import os
import stat
import struct
from _socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket

from qga.channels.listener import ListeningChannel
from qga.errors import ChannelError

_CREDENTIALS = struct.Struct("=iII")  # struct ucred of unix(7)


class UnixListen(ListeningChannel):
    _inode: int | None = None  # of our socket file: another agent may have replaced it since

    def do_bind(self) -> socket:
        path = self.config.path
        _remove_leftover(path)
        listener = socket(AF_UNIX, SOCK_STREAM)
        try:
            listener.bind(path)
            self._inode = os.stat(path).st_ino
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)  # of a path that is too long: without errno
            raise ChannelError(f"Failed to bind socket to {path}: {reason}") from error
        return listener

    def do_name_peer(self, client: socket, address: object) -> str:
        credentials = client.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(credentials)
        return f"pid {pid}, uid {uid}"

    def do_close(self) -> None:
        super().do_close()
        if self._inode is not None and _inode_of(self.config.path) == self._inode:
            os.unlink(self.config.path)


def _inode_of(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _remove_leftover(path: str) -> None:
    """Unlink a socket that nobody listens on. Raises ChannelError for any other file."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ChannelError(f"Failed to bind socket to {path}: the file exists and is not a socket")
    if _is_in_use(path):
        raise ChannelError(f"Failed to bind socket to {path}: another program listens on it")
    try:
        os.unlink(path)
    except OSError as error:
        raise ChannelError(f"Failed to unlink socket {path}: {error.strerror}") from error


def _is_in_use(path: str) -> bool:
    probe = socket(AF_UNIX, SOCK_STREAM)
    probe.setblocking(False)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        return False
    except OSError:  # EAGAIN: its backlog is full; EPROTOTYPE: it takes datagrams
        return True
    finally:
        probe.close()
    return True
