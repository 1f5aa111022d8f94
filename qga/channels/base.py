"""What a channel is, and how one is opened, served and given back.

The verbs follow the rule of docs/architecture.md: the agent calls `open`, `start` and `close`; a
channel overrides `do_open`, `do_start` and `do_close`, which nobody else calls.
"""

from __future__ import annotations

from qga.errors import ChannelError
from qga.wire.position import Position

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.policy.caller import Caller
    from qga.serving.server import Server
    from qga.settings.config import ChannelConfig


RETRY_INTERVAL = 0.5
"""Seconds between two attempts to open a missing device, or to bind a socket."""


class Channel:
    """A way for bytes to reach the agent. `caller` represents their sender."""

    def __init__(self, agent: Server, config: ChannelConfig, caller: Caller) -> None:
        self.agent = agent
        self.config = config
        self.caller = caller
        self._closed = False
        self.position = Position()

    @property
    def serves(self) -> bool:
        """Whether the device or socket is open, so that a client can connect."""
        raise NotImplementedError

    @property
    def has_client(self) -> bool:
        """Whether a client is connected, as far as that can be known."""
        raise NotImplementedError

    def open(self) -> None:
        """Acquire the device or socket, or raise ChannelError. Nobody is served yet.

        So a daemon can fail, or go to the background, before it serves.
        """
        self.do_open()

    def start(self) -> None:
        """Serve from now on. A channel that is not open yet is opened as soon as that works."""
        if self.serves:
            self.do_start()
        else:
            self.open_later()

    def close(self) -> None:
        """Stop serving, and release everything."""
        self._closed = True
        self.do_close()

    def open_later(self) -> None:
        """Try to open and start it, every RETRY_INTERVAL until that works."""
        self.agent.loop.call_later(RETRY_INTERVAL, self._try_to_open)

    def _try_to_open(self) -> None:
        if self._closed:
            return
        try:
            self.do_open()
        except ChannelError:
            self.open_later()
            return
        self.agent.log.warning(
            f"channel '{self.config.path}' is open", "channel-open", channel=self.config.name
        )
        self.do_start()
        self.agent.report_status()

    def do_open(self) -> None:
        """Acquire the device or socket, or raise ChannelError."""
        raise NotImplementedError

    def do_start(self) -> None:
        """Serve what `do_open` has acquired."""
        raise NotImplementedError

    def do_close(self) -> None:
        """Release whatever was acquired, which may be nothing."""
        raise NotImplementedError
