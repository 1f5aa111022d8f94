"""What a connection and its channel ask of their agent, beyond what its commands may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qga.plugin.services import Services

if TYPE_CHECKING:
    from qga.errors import QgaError
    from qga.plugin.registry import Command
    from qga.policy.caller import Caller
    from qga.serving.audit import Audit
    from qga.serving.session import Session


class Server(Services, Protocol):
    """The agent, as a connection sees it.

    audit: who had what done.
    postponed: connections whose request waits for `try_again`.
    """

    audit: Audit
    postponed: set[Session]

    def on_connect(self, caller: Caller) -> None:
        """A channel has a new connection."""

    def on_disconnect(self, caller: Caller) -> None:
        """A channel has lost a connection."""

    def on_client_left(self, caller: Caller) -> None:
        """The host has left a virtio port, whose connection stays."""

    def report_status(self) -> None:
        """A channel serves now, or does not any longer."""

    def report_unheard(self, command: Command) -> None:
        """A command has succeeded, and nobody has its reply."""

    def report_fault(self, name: str, error: BaseException) -> QgaError:
        """What to answer when a handler raised something else than QgaError."""

    def log_fault(self, name: str, error: BaseException) -> None:
        """Log what should not have happened; never fails itself."""
