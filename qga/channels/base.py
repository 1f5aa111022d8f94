"""What a channel is.

`open` acquires the device or the socket and serves nobody yet, so that a daemon can fail, or
go to the background, in between; `start` begins to serve; `close` gives everything back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _socket import socket

    from qga.policy.caller import Caller
    from qga.serving.server import Server
    from qga.settings.config import ChannelConfig


RETRY_INTERVAL = 0.5
"""Seconds between two looks for a device or a place for a socket that is missing."""


class Channel:
    """A door that bytes come through. `caller` is whoever comes through it."""

    def __init__(self, agent: Server, config: ChannelConfig, caller: Caller) -> None:
        self.agent = agent
        self.config = config
        self.caller = caller

    @property
    def serves(self) -> bool:
        """Whether the device or socket is there, so that somebody can come."""
        raise NotImplementedError

    @property
    def has_client(self) -> bool:
        """Whether somebody is connected, as far as that can be told."""
        raise NotImplementedError

    def adopt(self, listener: socket) -> None:
        """Serve a listening socket that the service manager made."""
        raise NotImplementedError

    def open(self) -> None:
        """Acquire the device or socket, or raise ChannelError."""
        raise NotImplementedError

    def start(self) -> None:
        """Serve from now on."""
        raise NotImplementedError

    def close(self) -> None:
        """Serve nobody any more and give everything back."""
        raise NotImplementedError
