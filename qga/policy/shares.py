"""Which channel may have how many descriptors.

What must stay true: however many files a channel opens and programs it starts, there are
descriptors left for new clients, for a thaw, for passwords, and for the other channels. So a part
of the limit is kept back, and the rest is shared out equally.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qga.errors import QgaError
from qga.policy.quota import Quota
from qga.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qga.settings.config import ChannelConfig

_KEPT_BACK = 128  # beside one for each client


class Descriptors:
    """What each channel may have open for longer than a command, of `most` in all."""

    def __init__(self, most: int, channels: Sequence[ChannelConfig]) -> None:
        kept_back = _KEPT_BACK + sum(channel.max_clients for channel in channels)
        self.share = max(most - kept_back, most // 2) // len(channels)
        self._quota = Quota()

    def take(self, channel: str, count: int) -> None:
        """Count so many more. Raises QgaError when the channel has its share already."""
        if not self._quota.take(channel, count, self.share):
            raise QgaError(
                f"files and programs of this channel have {self._quota.taken(channel)} of its "
                f"{counted(self.share, 'descriptor')} already; close a file or wait for a program "
                "to end"
            )

    def give(self, channel: str, count: int) -> None:
        """Give back what was taken."""
        self._quota.give(channel, count)
