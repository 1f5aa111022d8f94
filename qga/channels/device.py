"""A character device as a channel: one session for as long as the device lasts.

The host may disconnect and come back; the device itself may be unplugged and plugged back, or
be missing at the start. Then it is looked for twice a second, and only then.
"""

from __future__ import annotations

import os
import select
from errno import EACCES, EBUSY

from qga.channels.base import RETRY_INTERVAL, Channel
from qga.errors import ChannelError
from qga.serving.session import Session

_HINTS = {
    EBUSY: " (another program has it open, perhaps the distribution's qemu-guest-agent)",
    EACCES: " (it takes root)",
}


class DeviceChannel(Channel):
    """What the serial methods share. They say how to find and open their device."""

    outlives_hang_up = True
    """Whether reading goes on after an end of file: the host may come back."""

    _fd: int | None = None
    _session: Session | None = None
    _closed = False

    @property
    def serves(self) -> bool:
        return self._session is not None

    @property
    def has_client(self) -> bool:
        return self._fd is not None

    def open_device(self) -> int:
        """A non-blocking descriptor, or OSError."""
        raise NotImplementedError

    def close_device(self, fd: int) -> None:
        os.close(fd)

    def open(self) -> None:
        try:
            fd = self.open_device()
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "")
            raise ChannelError(
                f"error opening channel '{self.config.path}': {error.strerror}{hint}"
            ) from error
        if not _can_be_watched(fd):
            self.close_device(fd)
            raise ChannelError(
                f"error opening channel '{self.config.path}': it is no port or serial line"
            )
        self._fd = fd

    def start(self) -> None:
        if self._fd is None:
            self._retry_later()
            return
        self._session = Session(
            self.agent,
            self._fd,
            self.caller,
            self._on_end,
            short_read_empties=False,
            outlives_peer=self.outlives_hang_up,
        )
        self._session.start()
        self.agent.connected(self.caller)

    def close(self) -> None:
        self._closed = True
        self._release()

    def _on_end(self, _session: Session, error: OSError | None) -> None:
        reason = error.strerror if error else "end of file"
        self.agent.log.warning(
            f"channel '{self.config.path}' is gone ({reason}); waiting for it",
            "channel-gone",
            channel=self.config.name,
        )
        self._release()
        self._retry_later()

    def _release(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
            self.agent.disconnected(self.caller)
        if self._fd is not None:
            self.close_device(self._fd)
            self._fd = None

    def _retry_later(self) -> None:
        self.agent.loop.call_later(RETRY_INTERVAL, self._retry)

    def _retry(self) -> None:
        if self._closed:
            return
        try:
            self.open()
        except ChannelError:
            self._retry_later()
        else:
            self.agent.log.warning(
                f"channel '{self.config.path}' is open again",
                "channel-open",
                channel=self.config.name,
            )
            self.start()


def _can_be_watched(fd: int) -> bool:
    """Not so for files and for devices that are always ready, such as /dev/null."""
    with select.epoll() as probe:
        try:
            probe.register(fd)
        except PermissionError:
            return False
    return True
