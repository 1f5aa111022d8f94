"""What a group of commands may ask of its agent: with `@command` this is the plugin interface.

`CommandGroup.agent` is one of these. Whatever else the agent has is its own, and may change
without notice. The methods may be called from any thread unless they say otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from qga.loop import Loop
    from qga.plugin.registry import Registry
    from qga.policy.shares import Descriptors
    from qga.service.log import Log
    from qga.service.state import State
    from qga.settings.config import Config
    from qga.worker import Worker


class Services(Protocol):
    """The agent, as its commands see it.

    config: what the administrator has set; nobody changes it.
    log: where to complain. It never raises, and writes nothing while filesystems are frozen.
    loop: timers, descriptors to watch, and `post`, which has something done on the loop.
    worker: threads for what may wait; `submit` is called on the loop.
    state: what outlives a restart of the agent.
    registry: all commands, those of other groups included.
    descriptors: how many files each channel may have open; count those that outlive a command.
    frozen: whether the guest's filesystems are frozen: then nothing may write, start a program or
        import a module for the first time.
    """

    config: Config
    log: Log
    loop: Loop
    worker: Worker
    state: State
    registry: Registry
    descriptors: Descriptors
    frozen: bool

    def freeze(self, seconds: int) -> None:
        """Be frozen from now on, before the first filesystem is; from a worker.

        seconds: when to thaw without being asked to, also after a restart; 0 for never.
        Raises QgaError when the marker that outlives the agent cannot be made.
        """

    def thaw(self) -> None:
        """Return to normal, after the last filesystem was thawed; from a worker."""

    def try_again(self) -> None:
        """Have the requests carried out that a handler has answered with NotYet."""

    def channels_without_client(self) -> set[str]:
        """Names of the channels that nobody is connected to; on the loop."""

    def report_slow(self, name: str, seconds: float) -> None:
        """Log that the loop could serve nobody for this long."""
