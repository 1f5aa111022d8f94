"""What can go wrong between the host and the agent in the guest.

    AgentError
    ├── ConnectError        no way to the agent: no such socket, no permission, nobody there
    ├── AgentTimeout        the agent did not answer in time
    ├── ProtocolError       bytes came that are no answer
    ├── CopyError           a file is not copied as it is
    ├── NothingFrozen       a freeze did not freeze what it was to freeze
    ├── FreezeEnded         the filesystems were thawed before we did it
    ├── ThawFailed          they may still be frozen, after all tries
    └── CommandError        the agent answered: it refused the command, or the command failed
        └── CommandNotFound     it does not know the command, or its administrator disabled it
            └── GuestFrozen         it carries out nothing else until it is thawed

Every message names the guest, by its address, and the command that it is about, so that
`str(error)` alone tells a user what happened. Text in it may come from the guest: escape it
before a terminal sees it.
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of all errors of this package.

    `address` and `command` may be left empty where they are not known: they are filled in as
    the error passes through the guest's object.
    """

    def __init__(self, reason: str, *, address: str = "", command: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address
        self.command = command

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.address, self.command, self.reason)))


class ConnectError(AgentError):
    """The agent's channel cannot be reached, or was closed at the other end."""

    def __init__(self, address: str, reason: str, *, command: str = "") -> None:
        super().__init__(reason, address=address, command=command)


class AgentTimeout(AgentError):
    """`command` was not done within `seconds`.

    It may still be running in the guest, and its effect may still come.
    """

    def __init__(self, address: str, command: str, seconds: float, reason: str) -> None:
        reason = f"timed out after {seconds:g} s: {reason}"
        super().__init__(reason, address=address, command=command)
        self.seconds = seconds


class ProtocolError(AgentError):
    """A reply that is not JSON, is too large, or lacks what it must have."""


class CopyError(AgentError):
    """A file changed while it was copied, was damaged on the way, or cannot be where it should."""


class NothingFrozen(AgentError):
    """Nothing is frozen, or not all that was asked for: a snapshot now would not be consistent."""


class FreezeEnded(AgentError):
    """Nothing was frozen any more when it was to be thawed: a snapshot made is not consistent."""


class ThawFailed(AgentError):
    """The guest's filesystems may still be frozen: what else there was to do is left to you."""


class CommandError(AgentError):
    """The agent's own error reply, with QMP's two members `class` and `desc`."""

    def __init__(self, class_: str, desc: str, command: str) -> None:
        super().__init__(desc, command=command)
        self.class_ = class_
        self.desc = desc


class CommandNotFound(CommandError):
    """The guest does not offer this command."""


class GuestFrozen(CommandNotFound):
    """The guest's filesystems are frozen; `seconds` ago, where its agent says so."""

    def __init__(self, refusal: CommandNotFound, seconds: float | None) -> None:
        super().__init__(refusal.class_, refusal.desc, refusal.command)
        self.address = refusal.address
        self.reason = "the guest's filesystems are frozen"
        self.seconds = seconds
