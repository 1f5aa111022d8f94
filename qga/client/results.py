"""Replies as values with names and types.

The guest is not trusted: each member is checked for its type as it is taken, and a reply that
does not fit raises ProtocolError. Members that these types do not know are left out, since
every release of QEMU adds some; `GuestAgent.call` returns them all.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple, TypeVar

from qga.client.errors import ProtocolError

T = TypeVar("T")

# A shell's way to tell a program that was killed from one that ended.
SIGNAL_STATUS = 128


class CommandInfo(NamedTuple):
    """A command that the agent has. `success_response`: whether success is answered at all."""

    name: str
    enabled: bool
    success_response: bool


class AgentInfo(NamedTuple):
    """The agent's version (of QEMU's interface) and its commands, in the agent's order."""

    version: str
    commands: tuple[CommandInfo, ...]


class ExecResult(NamedTuple):
    """How a program in the guest ended: with an exit code, or killed by a signal.

    `stdout` and `stderr` are empty unless captured; the agent keeps the first 16 MiB of each
    and says so if it dropped the rest.
    """

    exitcode: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool

    @property
    def status(self) -> int:
        """One number, as a shell has it: the exit code, or 128 + the signal."""
        if self.signal is not None:
            return SIGNAL_STATUS + self.signal
        return self.exitcode or 0


class OSInfo(NamedTuple):
    """Kernel (as from uname) and distribution (as from os-release) of the guest."""

    kernel_release: str | None
    kernel_version: str | None
    machine: str | None
    id: str | None
    name: str | None
    pretty_name: str | None
    version: str | None
    version_id: str | None
    variant: str | None
    variant_id: str | None


class Timezone(NamedTuple):
    """`offset` in seconds east of UTC, `zone` its abbreviation (CET) if the guest knows it."""

    offset: int
    zone: str | None


class FileChunk(NamedTuple):
    """What one guest-file-read gave; `eof` if it came to the end of the file."""

    data: bytes
    eof: bool


def agent_info(reply: object) -> AgentInfo:
    commands = (
        CommandInfo(
            member(entry, "name", str),
            member(entry, "enabled", bool),
            optional(entry, "success-response", bool) is not False,
        )
        for entry in member(reply, "supported_commands", list)
    )
    return AgentInfo(member(reply, "version", str), tuple(commands))


def exec_result(reply: object) -> ExecResult | None:
    """None while the program runs."""
    if not member(reply, "exited", bool):
        return None
    return ExecResult(
        optional(reply, "exitcode", int),
        optional(reply, "signal", int),
        decode_base64(optional(reply, "out-data", str)),
        decode_base64(optional(reply, "err-data", str)),
        bool(optional(reply, "out-truncated", bool)),
        bool(optional(reply, "err-truncated", bool)),
    )


def os_info(reply: object) -> OSInfo:
    return OSInfo(*(optional(reply, name.replace("_", "-"), str) for name in OSInfo._fields))


def timezone(reply: object) -> Timezone:
    return Timezone(member(reply, "offset", int), optional(reply, "zone", str))


def file_chunk(reply: object) -> FileChunk:
    return FileChunk(decode_base64(member(reply, "buf-b64", str)), member(reply, "eof", bool))


def member(reply: object, name: str, kind: type[T]) -> T:
    """`reply[name]`, which must be there."""
    value = optional(reply, name, kind)
    if value is None:
        raise ProtocolError(f"the reply lacks '{name}'")
    return value


def optional(reply: object, name: str, kind: type[T]) -> T | None:
    """`reply[name]`, or None if it is not there."""
    value = checked(reply, dict, "the reply").get(name)
    return None if value is None else checked(value, kind, f"'{name}' of the reply")


def checked(value: Any, kind: type[T], what: str) -> T:
    """`value`, if it is of that very type (in Python, True is an int too)."""
    if type(value) is not kind:
        raise ProtocolError(f"{what} is not of type {kind.__name__}")
    return value


def decode_base64(text: str | None) -> bytes:
    try:
        return binascii.a2b_base64(text or "")
    except ValueError as error:
        raise ProtocolError(f"the reply's base64 is damaged: {error}") from None


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
