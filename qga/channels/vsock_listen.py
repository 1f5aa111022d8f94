"""A vsock port: `<cid>:<port>`. The CID 4294967295, or -1, means any of the guest's own.

Anyone who can connect can send commands, so only the configured CIDs are accepted; by default the
host's (2).
"""

from __future__ import annotations

from _socket import SOCK_STREAM, socket

from qga.channels.listener import ListeningChannel
from qga.errors import ChannelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UINT32 = range(2**32)


class VsockListen(ListeningChannel):
    def do_bind(self) -> socket:
        path = self.config.path
        address = _parse_address(path)
        try:
            from _socket import AF_VSOCK

            listener = socket(AF_VSOCK, SOCK_STREAM)
        except ImportError:
            raise ChannelError(
                f"error opening channel '{path}': this Python was built without vsock"
            ) from None
        except OSError as error:
            raise ChannelError(
                f"error opening channel '{path}': this machine has no vsock: {error.strerror}"
            ) from error
        try:
            listener.bind(address)
        except OSError as error:
            listener.close()
            raise ChannelError(f"Failed to bind socket to {path}: {error.strerror}") from error
        return listener

    def do_admit(self, address: Any) -> bool:
        cid, _port = address
        return cid in self.config.allow_cids

    def do_name_peer(self, client: socket, address: Any) -> str:
        cid, port = address
        return f"cid {cid}, port {port}"


def _parse_address(path: str) -> tuple[int, int]:
    cid, separator, port = path.partition(":")
    try:
        address = int(cid) % 2**32 if cid == "-1" else int(cid), int(port)
    except ValueError:
        address = (-1, -1)
    if not separator or address[0] not in _UINT32 or address[1] not in _UINT32:
        raise ChannelError(
            f"error opening channel '{path}': a vsock address is <cid>:<port>, such as 3:1234"
        )
    return address
