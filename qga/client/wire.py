"""The client's half of the protocol, without any I/O.

A reply is one line. Its `id` echoes that of the request: `ReplyReader` drops a reply with another
id or with none, such as one that a guest sends again after QEMU has loaded an older state of it. A
client that gave up waiting, or that took over a serial line in the middle of another conversation,
also needs to know where the next line begins. `guest-sync-delimited` shows that: its reply, and
nothing else that the agent sends, begins with a byte 0xFF, and returns the number that was sent.
`SyncSearch` drops everything before the reply with its own number. It also finds out whether the
agent echoes ids: old agents refuse a request with an id, and then only the order matches replies.

What must stay true: parsing takes linear time, however the bytes are split, and memory of a small
multiple of the permitted size of the reply. Anything that is not a valid reply is a ProtocolError,
no matter which exception Python raises for it.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from qga.client.errors import CommandError, CommandNotFound, ProtocolError, shortened
from qga.wording import counted

# The limit of QEMU's JSON lexer, which refuses a longer request only after most of it was sent.
MAX_REQUEST = 64 * 1024 * 1024 - 1

# No reply is larger, whatever the command.
DEFAULT_MAX_REPLY = 128 * 1024 * 1024

# Bytes of a reply without bulk data. Python's objects take up to 30 times the memory of the JSON.
USUAL_REPLY = 4 * 1024 * 1024

# Two streams of 16 MiB as base64; 48 MiB as base64, the most that guest-file-read returns.
LARGEST_EXEC_STATUS = 44 * 1024 * 1024
LARGEST_READ = 48 * 1024 * 1024

# guest-file-read without a count.
DEFAULT_READ = 4096

# Bytes of a reply in addition to its bulk data.
REPLY_FRAME = 4096

# A reply larger than usual consists of long strings, not of many values.
MOST_VALUES = 100_000

# JSON has no such limits, but Python has: on recursion, and on the digits of int() and str().
DEEPEST, LONGEST_NUMBER = 100, 400


# The agent's refusal of a request with an id, before QEMU 3.0.
ID_REFUSED = b"member 'id' is unexpected"

# How a surrogate begins in JSON that is ASCII; a character beyond U+FFFF has two.
SURROGATE = rb"\ud"

# Clears a half-written request out of the agent's parser; also the mark of the sync reply.
DELIMITER = b"\xff"

# Longer than any reply to guest-sync-delimited, even with much white space.
MAX_SYNC_REPLY = 1024

# All JSON parsers represent integers up to 2^53 exactly.
IDS = 2**53
TAG_SIZE = len(f'"id": {IDS}, ')

Reply = dict[str, Any]


def encode_request(command: str, arguments: Mapping[str, Any]) -> bytes:
    """A request as a line.

    Raises ValueError for a number that JSON cannot represent, and ProtocolError for other text that
    it cannot, or a request that is too large.
    """
    request: dict[str, Any] = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    line = json.dumps(request, allow_nan=False).encode() + b"\n"
    if SURROGATE in line:
        check_arguments(command, arguments)
    if len(line) > MAX_REQUEST - TAG_SIZE:
        raise ProtocolError(
            f"a request of {counted(len(line), 'byte')} is too large, "
            f"the agent takes at most {MAX_REQUEST}",
            command=command,
        )
    return line


def check_arguments(command: str, arguments: Mapping[str, Any]) -> None:
    """Raise ProtocolError for bytes that are not UTF-8, which Python keeps as surrogates.

    An agent cannot parse them, so its error would not have the id of the request.
    """
    for name, value in {"command": command, **arguments}.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            reason = f"'{name}' is not UTF-8, which the agent's JSON cannot carry"
            raise ProtocolError(reason, command=command) from None


PING = encode_request("guest-ping", {})


def new_id() -> int:
    """A unique id, even among other programs, whose replies may still arrive."""
    return secrets.randbelow(IDS)


def tagged(request: bytes, id: int | None) -> bytes:
    """The same request with an id, unless that is None."""
    return request if id is None else b'{"id": %d, %s' % (id, memoryview(request)[1:])


def reply_limit(command: str, arguments: Mapping[str, Any]) -> int:
    """The permitted size in bytes of the reply to a request."""
    if command == "guest-exec-status":
        return LARGEST_EXEC_STATUS
    if command == "guest-file-read":
        count = arguments.get("count", DEFAULT_READ)
        count = count if isinstance(count, int) else DEFAULT_READ
        return max(0, min(count, LARGEST_READ)) // 3 * 4 + REPLY_FRAME
    return USUAL_REPLY


def parse_reply(line: bytes) -> Reply:
    """Parse a line as a reply. Raises ProtocolError if it is invalid."""
    try:
        if len(line) > USUAL_REPLY and sum(map(line.count, b",[{")) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        reply = DECODER.decode(str(line.lstrip(DELIMITER), "utf-8"))
        check_text(reply)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON in the reply {excerpt(line)}: {reason_of(error)}") from None
    if isinstance(reply, dict) and ("return" in reply or isinstance(reply.get("error"), dict)):
        return reply
    raise ProtocolError(f"neither 'return' nor 'error' in the reply {excerpt(line)}")


def check_text(value: object) -> None:
    """Raise ValueError for values that JSON permits, but that cannot be encoded again."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for each in level:
            if type(each) is str:
                check_string(each)
            elif type(each) is dict:
                deeper += each
                deeper += each.values()
            elif type(each) is list:
                deeper += each
        if not deeper:
            return
        level = deeper
    raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def check_string(text: str) -> None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair in a string") from None


def reason_of(error: Exception) -> str:
    """A description of an error of the JSON parser."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} at {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        at_end = error.pos >= len(error.doc)
        return "it ends too early" if at_end else f"unexpected text at character {error.pos}"
    return str(error)


def whole_number(digits: str) -> int:
    """Limit the digits: int() takes quadratic time, or raises, depending on Python's version."""
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {counted(len(digits), 'digit')}")
    return int(digits)


def finite_number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:LONGEST_NUMBER]} is too large")
    return number


def no_number(word: str) -> float:
    """Refuse NaN and infinities, which Python accepts as JSON."""
    raise ValueError(f"{word} is not JSON")


DECODER = json.JSONDecoder(
    parse_int=whole_number, parse_float=finite_number, parse_constant=no_number
)


def outcome(reply: Mapping[str, Any], command: str) -> Any:
    """The `return` value of a reply to `command`. Raises CommandError for an error reply."""
    if "return" in reply:
        return reply["return"]
    raise command_error(reply["error"], command)


def command_error(error: Mapping[str, Any], command: str) -> CommandError:
    class_ = shortened(str(error.get("class", "GenericError")))
    kind = CommandNotFound if class_ == "CommandNotFound" else CommandError
    return kind(class_, shortened(str(error.get("desc", "no description"))), command)


def excerpt(line: bytes, length: int = 60) -> str:
    return repr(bytes(line[:length]))[1:] + ("…" if len(line) > length else "")


class IdRefused(Exception):
    """This agent does not accept requests with ids."""


class Reader(Protocol):
    """Searches a byte stream for one reply."""

    rest: bytes
    """The bytes after the reply."""

    def feed(self, data: bytes) -> Reply | None:
        """Process bytes; returns the reply once it is complete."""


class ReplyReader:
    """Finds the reply with one of `ids`, or the first reply if there are none.

    `max_reply`: limit on its bytes, and on the bytes dropped before it.
    """

    def __init__(self, max_reply: int = DEFAULT_MAX_REPLY, ids: Sequence[int] = ()) -> None:
        self.rest = b""
        self.dropped = ""
        """The last reply that was dropped."""
        self._max_reply = max_reply
        self._ids = ids
        self._line = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> Reply | None:
        start = 0
        while start < len(data):
            end = data.find(b"\n", start)
            piece = data[start : end if end >= 0 else len(data)]
            self._size += len(piece)
            if self._size > self._max_reply:
                raise ProtocolError(f"the reply is larger than {counted(self._max_reply, 'byte')}")
            self._line += piece
            if end < 0:
                return None
            reply = self._reply()
            if reply is not None:
                self.rest = data[end + 1 :]
                return reply
            start = end + 1
        return None

    def _reply(self) -> Reply | None:
        """The reply in the line, if it is the right one."""
        line = bytes(self._line)
        self._line.clear()
        reply = parse_reply(line)
        if not self._ids or reply.get("id") in self._ids:
            return reply
        self.dropped = excerpt(line)
        return None


class SyncSearch:
    """Finds the reply to its own guest-sync-delimited and forgets everything before it.

    `tagging`: whether the request has an id. Raises IdRefused if the agent does not accept it.
    """

    def __init__(self, *, tagging: bool = True) -> None:
        self.rest = b""
        self._id = new_id()
        self._tagging = tagging
        self._candidate = b""
        self._tail = b""

    @property
    def request(self) -> bytes:
        request = encode_request("guest-sync-delimited", {"id": self._id})
        return DELIMITER + tagged(request, self._id if self._tagging else None)

    def echoed(self, reply: Reply) -> bool:
        """Whether the agent echoed the id of the request."""
        return self._tagging and reply.get("id") == self._id

    def feed(self, data: bytes) -> Reply | None:
        self._look_for_refusal(data)
        data = self._candidate + data
        start = data.find(DELIMITER)
        while start >= 0:
            end = data.find(b"\n", start)
            if end < 0:
                break
            reply = self._ours(data[start:end].rpartition(DELIMITER)[2])
            if reply is not None:
                self.rest = data[end + 1 :]
                return reply
            start = data.find(DELIMITER, end)
        self._candidate = self._unfinished(data, start)
        return None

    def _look_for_refusal(self, data: bytes) -> None:
        seen = self._tail + data
        if self._tagging and ID_REFUSED in seen:
            raise IdRefused
        self._tail = seen[-len(ID_REFUSED) :]

    def _ours(self, line: bytes) -> Reply | None:
        try:
            reply = parse_reply(line) if len(line) <= MAX_SYNC_REPLY else {}
        except ProtocolError:
            return None
        return reply if reply.get("return") == self._id else None

    @staticmethod
    def _unfinished(data: bytes, start: int) -> bytes:
        """The last bytes that may be the beginning of a sync reply, limited in size."""
        if start < 0:
            return b""
        candidate = data[data.rfind(DELIMITER) :]
        return candidate if len(candidate) <= MAX_SYNC_REPLY else b""
