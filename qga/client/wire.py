"""The client's half of the protocol, without any I/O.

A reply is one line. Nothing in it says which request it answers: only the order does, so a
client that gave up waiting, or that took over a serial line in the middle of someone else's
talk, no longer knows whose reply comes next. `guest-sync-delimited` mends that: its reply, and
nothing else the agent ever sends, has a byte 0xFF before it, and carries back the number that
was sent. `SyncSearch` throws away all that comes before the reply with its own number;
`ReplyReader` then takes the line after it as the answer to the one request in flight.

Both take any cutting of the bytes, in time linear in their number.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from qga.client.errors import CommandError, CommandNotFound, ProtocolError

# As QEMU's JSON lexer: a longer request is refused, but only after most of it was sent.
MAX_REQUEST = 64 * 1024 * 1024 - 1

# 48 MiB, the most that guest-file-read returns, are 64 MiB as base64.
DEFAULT_MAX_REPLY = 128 * 1024 * 1024

# Clears a half-written request out of the agent's parser; also the mark of the sync reply.
DELIMITER = b"\xff"

# Longer than any reply to guest-sync-delimited, whatever its spacing.
MAX_SYNC_REPLY = 1024

# Every JSON reader keeps integers up to 2^53 as they are.
SYNC_IDS = 2**53


def encode_request(command: str, arguments: Mapping[str, Any]) -> bytes:
    """One request as a line. ValueError for a number that JSON cannot carry."""
    request: dict[str, Any] = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    line = json.dumps(request, allow_nan=False).encode() + b"\n"
    if len(line) > MAX_REQUEST:
        raise ProtocolError(
            f"a request of {len(line)} bytes is too large, the agent takes at most {MAX_REQUEST}",
            command=command,
        )
    return line


PING = encode_request("guest-ping", {})


def decode_reply(line: bytes, command: str) -> Any:
    """The `return` value of the reply to `command`; CommandError for an error reply."""
    try:
        reply = json.loads(str(line.lstrip(DELIMITER), "utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON in the reply {excerpt(line)}: {error}") from None
    if isinstance(reply, dict):
        if "return" in reply:
            return reply["return"]
        if isinstance(reply.get("error"), dict):
            raise command_error(reply["error"], command)
    raise ProtocolError(f"neither 'return' nor 'error' in the reply {excerpt(line)}")


def command_error(error: Mapping[str, Any], command: str) -> CommandError:
    class_ = str(error.get("class", "GenericError"))
    kind = CommandNotFound if class_ == "CommandNotFound" else CommandError
    return kind(class_, str(error.get("desc", "no description")), command)


def excerpt(line: bytes, length: int = 60) -> str:
    return repr(line[:length])[1:] + ("…" if len(line) > length else "")


class Reader(Protocol):
    """Waits in a stream of bytes for one thing."""

    surplus: bool
    """Whether bytes followed it, though nothing else was asked for."""

    def feed(self, data: bytes) -> bytes | None:
        """What was waited for, once it is complete."""


class ReplyReader:
    """Takes one line of at most `max_reply` bytes."""

    def __init__(self, max_reply: int = DEFAULT_MAX_REPLY) -> None:
        self.surplus = False
        self._max_reply = max_reply
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes | None:
        line, newline, rest = data.partition(b"\n")
        self._pieces.append(line)
        self._size += len(line)
        if self._size > self._max_reply:
            raise ProtocolError(f"the reply is larger than {self._max_reply} bytes")
        if not newline:
            return None
        self.surplus = bool(rest)
        return b"".join(self._pieces)


class SyncSearch:
    """Finds the reply to its own guest-sync-delimited and forgets everything before it."""

    def __init__(self) -> None:
        self.surplus = False
        self._id = secrets.randbelow(SYNC_IDS)
        self._candidate = b""

    @property
    def request(self) -> bytes:
        return DELIMITER + encode_request("guest-sync-delimited", {"id": self._id})

    def feed(self, data: bytes) -> bytes | None:
        data = self._candidate + data
        start = data.find(DELIMITER)
        while start >= 0:
            end = data.find(b"\n", start)
            if end < 0:
                break
            reply = data[start:end].rpartition(DELIMITER)[2]
            if self._is_ours(reply):
                self.surplus = end + 1 < len(data)
                return reply
            start = data.find(DELIMITER, end)
        self._candidate = self._unfinished(data, start)
        return None

    def _is_ours(self, reply: bytes) -> bool:
        try:
            return len(reply) <= MAX_SYNC_REPLY and json.loads(reply) == {"return": self._id}
        except (ValueError, RecursionError):
            return False

    @staticmethod
    def _unfinished(data: bytes, start: int) -> bytes:
        """What may be the beginning of a sync reply: kept, but never much of it."""
        if start < 0:
            return b""
        candidate = data[data.rfind(DELIMITER) :]
        return candidate if len(candidate) <= MAX_SYNC_REPLY else b""
