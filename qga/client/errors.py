"""The errors of the library.

    AgentError
    ├── ConnectError        the agent cannot be reached; also a ConnectionError
    │   └── QueueFull           too many other clients wait for the agent's socket
    ├── AgentTimeout        the agent did not answer in time; also a TimeoutError
    │   ├── ProgramTimeout      a program took too long and was terminated
    │   └── NotReady            the guest was not ready in time
    ├── NeverReady          waiting for the guest is useless
    ├── ProgramFailed       a program exited with a status other than 0, or was killed by a signal
    ├── ProtocolError       the agent sent an invalid reply
    ├── CopyError           a file could not be copied as it is
    ├── NothingFrozen       a freeze did not freeze everything that was asked for
    ├── FreezeEnded         the filesystems were thawed by somebody else
    ├── ThawFailed          the filesystems may still be frozen after all attempts
    ├── SnapshotFailed      no snapshot was taken, and nothing of it is left; or an external one
    │                       was, without a record: the message names the files that the guest uses
    ├── NotQuiesced         no snapshot was taken, because it would not be consistent
    └── CommandError        the agent refused the command, or the command failed
        ├── ProgramNotStarted   a program could not be started; also an OSError
        └── CommandNotFound     the agent lacks the command, or its administrator disabled it
            └── GuestFrozen         the agent refuses the command until the guest is thawed

Every message begins with the guest's address and the command, so that `str(error)` alone is enough
for a user. It may contain text from the guest: escape it before you print it to a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from errno import errorcode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qga.client.results import AnyResult
    from qga.client.waiting import Met


# Characters: a terminal may have to show it.
LONGEST_ERROR = 16 * 1024


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]}…"


class AgentError(Exception):
    """Base of all errors of this package.

    `address` and `command` may be left empty: the GuestAgent fills them in when the error passes
    through one of its methods.
    """

    def __init__(self, reason: str, *, address: str = "", command: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address
        self.command = command

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.address, self.command, self.reason)))


class ConnectError(AgentError, ConnectionError):
    """The agent's channel cannot be reached, or was closed at the other end."""

    def __init__(self, address: str, reason: str, *, command: str = "") -> None:
        super().__init__(reason, address=address, command=command)


class QueueFull(ConnectError):
    """Too many other clients wait for the agent's socket, which serves one at a time."""


class AgentTimeout(AgentError, TimeoutError):
    """`command` did not finish within `seconds`.

    It may still be running in the guest, and its effect may still come.
    """

    def __init__(self, address: str, command: str, seconds: float, reason: str) -> None:
        reason = f"timed out after {seconds:g} s: {reason}"
        super().__init__(reason, address=address, command=command)
        self.seconds = seconds


class ProgramTimeout(AgentTimeout):
    """A program took longer than `seconds` and was terminated.

    `result` contains its output so far.
    """

    def __init__(self, address: str, seconds: float, result: AnyResult) -> None:
        super().__init__(address, "exec", seconds, "the program took too long and was terminated")
        self.result = result
        self.stdout, self.stderr = result.stdout, result.stderr


class NotReady(AgentTimeout):
    """Not all conditions of `wait_for` were met within `seconds`.

    `missing` contains the others with their last state, `met` those that were met.
    """

    def __init__(
        self, address: str, seconds: float, missing: Mapping[str, str], met: Sequence[Met]
    ) -> None:
        together: dict[str, list[str]] = {}
        for condition, reason in missing.items():
            together.setdefault(reason, []).append(condition)
        reasons = (f"{', '.join(each)}: {reason}" for reason, each in together.items())
        super().__init__(address, "wait", seconds, "; ".join(reasons))
        self.missing = dict(missing)
        self.met = list(met)


class NeverReady(AgentError):
    """`condition` cannot be met, or this agent cannot check it, so waiting is useless."""

    def __init__(self, address: str, condition: str, reason: str) -> None:
        super().__init__(f"{condition}: {reason}", address=address, command="wait")
        self.condition = condition


class ProgramFailed(AgentError):
    """With check=True, a program did not exit with 0. `result` is its result."""

    def __init__(self, address: str, argv: Sequence[str], result: AnyResult) -> None:
        super().__init__(f"'{argv[0]}' {how_it_ended(result)}", address=address, command="exec")
        self.argv = list(argv)
        self.result = result
        self.stdout, self.stderr = result.stdout, result.stderr
        self.returncode = result.returncode


class ProtocolError(AgentError):
    """A reply is not JSON, is too large, or lacks a required member."""


class CopyError(AgentError):
    """A file changed while it was copied, was damaged, or cannot be created at its destination."""


class NothingFrozen(AgentError):
    """Not everything that was asked for is frozen: a snapshot now would not be consistent."""


class FreezeEnded(AgentError):
    """The guest had been thawed before: a snapshot taken meanwhile may be inconsistent."""


class ThawFailed(AgentError):
    """The filesystems of the guest may still be frozen, although thawing was retried."""


class SnapshotFailed(AgentError):
    """The disks could not be copied, or given an external snapshot."""

    def __init__(self, reason: str) -> None:
        super().__init__(shortened(reason))  # it may be a text of QEMU


class NotQuiesced(AgentError):
    """The guest could not be frozen as a whole, so that a snapshot would not be consistent.

    `cause` is the error behind it, if there is one. `started`: whether the snapshot had begun.
    """

    def __init__(
        self, reason: str, cause: AgentError | None = None, *, started: bool = False
    ) -> None:
        command = cause.command if cause else ""
        super().__init__(reason, address=cause.address if cause else "", command=command)
        self.cause = cause
        self.started = started


class CommandError(AgentError):
    """The agent replied with an error: `class` and `desc` as in QMP."""

    def __init__(self, class_: str, desc: str, command: str) -> None:
        super().__init__(desc, command=command)
        self.class_ = class_
        self.desc = desc


class ProgramNotStarted(CommandError, OSError):
    """The agent could not start a program. `errno` is set if its text is known."""

    def __init__(self, refusal: CommandError) -> None:
        super().__init__(refusal.class_, refusal.desc, refusal.command)
        self.address = refusal.address
        known = [number for number in errorcode if os.strerror(number) in refusal.desc]
        self.errno = max(known, key=lambda number: len(os.strerror(number)), default=None)


class CommandNotFound(CommandError):
    """The agent does not have this command, or it is disabled."""


class GuestFrozen(CommandNotFound):
    """The guest's filesystems are frozen: since `seconds`, if the agent reports that."""

    def __init__(self, refusal: CommandNotFound, seconds: float | None) -> None:
        super().__init__(refusal.class_, refusal.desc, refusal.command)
        self.address = refusal.address
        self.reason = "the guest's filesystems are frozen"
        self.seconds = seconds


def how_it_ended(result: AnyResult) -> str:
    """The end of a program, in words."""
    if result.ended_by:
        return f"was ended: {result.ended_by}"
    if result.signal is not None:
        return f"was killed by signal {result.signal}"
    return f"exited with {result.exitcode}"
