"""What can go wrong between the host and the agent in the guest.

    AgentError
    ├── ConnectError        no way to the agent: no such socket, no permission, nobody there
    ├── AgentTimeout        the agent did not answer in time
    ├── ProtocolError       bytes came that are no answer
    └── CommandError        the agent answered: it refused the command, or the command failed
        └── CommandNotFound     it does not know the command, or its administrator disabled it

Every message names the address or the command that it is about, so that `str(error)` alone
tells a user what happened. Text in it may come from the guest: escape it before a terminal
sees it.
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of all errors of this package."""


class ConnectError(AgentError):
    """The agent's channel cannot be reached, or was closed at the other end."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address


class AgentTimeout(AgentError):
    """`command` was not done within `seconds`.

    It may still be running in the guest, and its effect may still come.
    """

    def __init__(self, address: str, command: str, seconds: float, reason: str) -> None:
        super().__init__(f"{address}: {command}: timed out after {seconds:g} s: {reason}")
        self.address = address
        self.command = command
        self.seconds = seconds


class ProtocolError(AgentError):
    """A reply that is not JSON, is too large, or lacks what it must have."""


class CommandError(AgentError):
    """The agent's own error reply, with QMP's two members `class` and `desc`."""

    def __init__(self, class_: str, desc: str, command: str) -> None:
        super().__init__(f"{command}: {desc}")
        self.class_ = class_
        self.desc = desc
        self.command = command


class CommandNotFound(CommandError):
    """The guest does not offer this command."""
