"""Who asks for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from qga.policy.policy import Policy


class Caller(NamedTuple):
    """Who asks: a handler with a keyword-only parameter `caller` is given it.

    peer: who is at the other end, where the channel can tell.
    """

    channel: str
    policy: Policy
    peer: str = ""
