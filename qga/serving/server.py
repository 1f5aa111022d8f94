"""What a connection and its channel ask of their agent, beyond what commands may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qga.plugin.services import Services

if TYPE_CHECKING:
    from qga.errors import QgaError
    from qga.memory import Memory
    from qga.plugin.entry import Command
    from qga.policy.caller import Caller
    from qga.serving.audit import Audit
    from qga.serving.session import Session
    from qga.serving.turns import Turns


class Server(Services, Protocol):
    """The agent, as a connection sees it.

    audit: the audit trail.
    memory: how much of it is kept while something large passes.
    postponed: connections with a request that waits for `try_again`.
    turns: connections that wait until others have had their turn.
    """

    audit: Audit
    memory: Memory
    postponed: set[Session]
    turns: Turns

    def on_connect(self, caller: Caller) -> None:
        """A channel has a new connection."""

    def on_disconnect(self, caller: Caller) -> None:
        """A channel has lost a connection."""

    def on_client_left(self, caller: Caller) -> None:
        """The host has left a virtio port, whose connection stays."""

    def complete(self, command: Command) -> None:
        """Make a deferred command ready to be called. Call it on the loop."""

    def report_status(self) -> None:
        """Announce that a channel serves now, or no longer does."""

    def report_unheard(self, command: Command) -> None:
        """Notify the group of a command that has succeeded without anybody getting its reply."""

    def report_fault(self, name: str, error: BaseException) -> QgaError:
        """Return the answer for an exception other than QgaError, and log what needs a fix."""

    def log_fault(self, name: str, error: BaseException, *, is_secret: bool = False) -> None:
        """Log an error in the code of a command or of the agent. Never raises.

        is_secret: whether the text of the error may quote a secret, and is left out.
        """
