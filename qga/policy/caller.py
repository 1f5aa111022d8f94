"""The origin of a request."""

from __future__ import annotations

from qga.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.policy.policy import Policy


class Caller(NamedTuple):
    """The origin of a request, passed to handlers with a keyword-only parameter `caller`.

    channel: the name of the channel in the configuration.
    policy: the rules for this channel.
    peer: the client, if the channel knows it, such as "pid 7, uid 0".
    """

    channel: str
    policy: Policy
    peer: str = ""
