"""A character device as a channel: one session for as long as the device lasts.

The host may disconnect and come back. The device itself may be unplugged and plugged in again, or
be missing at the start: then, and only then, the channel looks for it twice a second.
"""

from __future__ import annotations

import os
import select
from errno import EACCES, EBUSY

from qga.channels.base import Channel
from qga.errors import ChannelError
from qga.serving.session import Session

_HINTS = {
    EBUSY: " (another program has it open, perhaps the distribution's qemu-guest-agent)",
    EACCES: " (it takes root)",
}


class DeviceChannel(Channel):
    """What the serial methods share. They override how their device is opened and closed."""

    outlives_hang_up = True
    """Whether reading continues after an end of file, because the host may come back."""

    _fd: int | None = None
    _session: Session | None = None

    @property
    def serves(self) -> bool:
        return self._fd is not None

    @property
    def has_client(self) -> bool:
        return self._fd is not None

    def do_open_device(self) -> int:
        """Return a non-blocking descriptor, or raise OSError."""
        raise NotImplementedError

    def do_close_device(self, fd: int) -> None:
        os.close(fd)

    def do_open(self) -> None:
        try:
            fd = self.do_open_device()
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "")
            raise ChannelError(
                f"error opening channel '{self.config.path}': {error.strerror}{hint}"
            ) from error
        if not _can_be_watched(fd):
            self.do_close_device(fd)
            raise ChannelError(
                f"error opening channel '{self.config.path}': not a port or serial line"
            )
        self._fd = fd

    def do_start(self) -> None:
        self._session = Session(
            self.agent,
            self._fd,  # type: ignore[arg-type]
            self.caller,
            self._on_end,
            short_read_empties=False,
            outlives_peer=self.outlives_hang_up,
            position=self.position,
        )
        self._session.start()
        self.agent.on_connect(self.caller)

    def do_close(self) -> None:
        had_session, fd = self._session is not None, self._fd
        if self._session is not None:
            self._session.close()
            self._session = None
        if fd is not None:
            self._fd = None  # before on_disconnect, where groups ask which channels have a client
            self.do_close_device(fd)
        if had_session:
            self.agent.on_disconnect(self.caller)

    def _on_end(self, _session: Session, error: OSError | None) -> None:
        reason = error.strerror if error else "end of file"
        self.agent.log.warning(
            f"channel '{self.config.path}' is gone ({reason}); waiting for it to come back",
            "channel-gone",
            channel=self.config.name,
        )
        self.do_close()
        self.open_later()


def _can_be_watched(fd: int) -> bool:
    """Whether epoll takes it: not a regular file, nor a device that is always ready (/dev/null)."""
    with select.epoll() as probe:
        try:
            probe.register(fd)
        except PermissionError:
            return False
    return True
