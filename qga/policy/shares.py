"""The share of file descriptors that each channel may use.

What must stay true: however many files a channel opens and programs it starts, descriptors are left
for new clients, a thaw, password changes and the other channels. So a part of the limit is
reserved, and the rest is divided equally.
"""

from __future__ import annotations

from qga.errors import QgaError
from qga.policy.quota import Quota
from qga.wording import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from qga.settings.config import ChannelConfig

_RESERVED = 128  # in addition to one for each client


class Descriptors:
    """Counts descriptors that stay open after a command; `most` is the limit of the process."""

    def __init__(self, most: int, channels: Sequence[ChannelConfig]) -> None:
        reserved = _RESERVED + sum(channel.max_clients for channel in channels)
        # Under a low limit, such as 256, the reserve would leave nothing.
        self.share = max(most - reserved, most // 2) // len(channels)
        self._quota = Quota()

    def take(self, channel: str, count: int) -> None:
        """Count `count` more descriptors. Raises QgaError if that exceeds the channel's share."""
        if not self._quota.take(channel, count, self.share):
            raise QgaError(
                f"files and programs of this channel already have {self._quota.taken(channel)} of "
                f"its {counted(self.share, 'descriptor')}; close a file or wait for a program to "
                "exit"
            )

    def give(self, channel: str, count: int) -> None:
        """Release descriptors that were taken."""
        self._quota.give(channel, count)
