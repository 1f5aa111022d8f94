"""The services that an agent offers to command groups. With `@command`, this is the plugin API.

`CommandGroup.agent` has this type. All other attributes of the agent are private and may change
without notice. The methods may be called from any thread unless documented otherwise.
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
    """The agent, as command groups see it.

    config: the configuration, which never changes.
    log: the log. Its methods never raise, and write nothing while filesystems are frozen.
    loop: timers, watched descriptors, and `post`, which calls a function on the loop.
    worker: threads for functions that may wait; `submit` must be called on the loop.
    state: state that survives a restart of the agent.
    registry: all commands, including those of other groups. The handler of a standard command is
        there once the command was called.
    descriptors: the number of open files of each channel. Count those that stay open after a
        command.
    frozen: whether the guest's filesystems are frozen. Then nothing may write, start a program or
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
        """Enter the frozen state. Call it on a worker, before freezing the first filesystem.

        seconds: when to thaw automatically, also after a restart of the agent; 0 for never.
        Raises QgaError if the marker file cannot be created.
        """

    def thaw(self) -> None:
        """Leave the frozen state. Call it on a worker, after thawing the last filesystem."""

    def try_again(self) -> None:
        """Retry the requests whose handlers have raised NotYet."""

    def channels_without_client(self) -> set[str]:
        """The names of the channels that have no client. Call it on the loop."""

    def report_slow(self, name: str, seconds: float) -> None:
        """Log that a handler has blocked the loop for `seconds`."""
