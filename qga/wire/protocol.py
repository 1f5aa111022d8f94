"""Requests and replies: what a JSON value means, and the lines of the answers."""

from __future__ import annotations

from qga.errors import QgaError
from qga.records import NamedTuple
from qga.wire import base64, jsonwriter
from qga.wire.payload import Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Union

    from qga.wire.payload import Part

    Event = Union["Request", "Fault"]

_SHORT = 64 * 1024  # bytes of data that are not encoded slice by slice: one piece is sent sooner

DELIMITER = b"\xff"
"""What guest-sync-delimited puts before its reply."""

_MEMBERS = {"execute", "arguments", "id"}
_NO_ARGUMENTS: dict[str, Any] = {}


class _Absent:
    """The id of a request that has none; JSON's null is an id."""


ABSENT = _Absent()


class Request(NamedTuple):
    """A well-formed request; whether such a command exists is not known here."""

    execute: str
    arguments: dict[str, Any]
    id: Any = ABSENT


class Fault(NamedTuple):
    """Bytes that were not a valid request, and the error to reply with."""

    error: QgaError
    id: Any = ABSENT


class Constant(dict):  # type: ignore[type-arg]
    """A result that never changes, so that its JSON is written only once."""

    __slots__ = ("json",)

    def __init__(self, members: Any) -> None:
        super().__init__(members)
        self.json = ""


def to_event(value: Any) -> Event:
    """The request in a message, or what is wrong with it."""
    if type(value) is not dict:
        return Fault(QgaError("QMP input must be a JSON object"))
    name = value.get("execute")
    arguments = value.get("arguments", _NO_ARGUMENTS)
    if type(name) is str and type(arguments) is dict and value.keys() <= _MEMBERS:
        return Request(name, arguments, value.get("id", ABSENT))
    return Fault(_envelope_error(value, arguments), value.get("id", ABSENT))


def _envelope_error(value: dict[str, Any], arguments: Any) -> QgaError:
    if type(value.get("execute", "")) is not str:
        return QgaError("QMP input member 'execute' must be a string")
    if type(arguments) is not dict:
        return QgaError("QMP input member 'arguments' must be an object")
    for member in value:
        if member not in _MEMBERS:
            return QgaError(f"QMP input member '{member}' is unexpected")
    return QgaError("QMP input lacks member 'execute'")


def encode_error(error: QgaError, id: Any = ABSENT) -> bytes:
    """The reply line of a request that failed."""
    body = jsonwriter.write({"class": error.error_class, "desc": error.desc})
    return f'{{"error": {body}{_encode_id(id)}}}\n'.encode("ascii")


def encode_return(result: Any, id: Any = ABSENT, with_numbers: bool = False) -> list[Part]:
    """The reply line of a request that succeeded; a Payload may be a member of `result`.

    with_numbers: the result may hold floats.
    """
    if result is None:
        if id is ABSENT:
            return _NO_RESULT
        result = {}
    kind = type(result)
    if kind is dict and Payload in map(type, result.values()):
        return _encode_with_payload(result, id)
    if kind is Constant:
        text = result.json = result.json or jsonwriter.write(result)
    else:
        text = jsonwriter.write_exactly(result) if with_numbers else jsonwriter.write(result)
    return [f'{{"return": {text}{"" if id is ABSENT else _encode_id(id)}}}\n'.encode("ascii")]


_NO_RESULT: list[Part] = [b'{"return": {}}\n']


def _encode_with_payload(result: dict[str, Any], id: Any) -> list[Part]:
    parts: list[Part] = []
    text = '{"return": {'
    before: dict[str, Any] = {}
    for member, value in result.items():
        if type(value) is not Payload:
            before[member] = value
            continue
        before[member] = ""
        opened = jsonwriter.write(before)[1:-2]  # up to the quote behind which the payload comes
        is_short = len(value.data) <= _SHORT
        data = base64.encode(value.data) if is_short else value
        parts += [f"{text}{opened}".encode("ascii"), data]  # type: ignore[list-item]
        text, before = '", ', {}
    rest = jsonwriter.write(before)[1:] if before else "}"
    parts.append(f"{text if before else text[:1]}{rest}{_encode_id(id)}}}\n".encode("ascii"))
    return parts if Payload in map(type, parts) else [b"".join(parts)]  # type: ignore[arg-type]


def _encode_id(id: Any) -> str:
    if id is ABSENT:
        return ""
    return f', "id": {_write_id(id)}'


def _write_id(id: Any) -> str:
    """Any JSON value, quickly where it holds no floats: those have a point or an exponent."""
    try:
        text = jsonwriter.write(id)
        if type(id) in (str, int) or ("." not in text and "e" not in text):
            return text
    except (ValueError, RecursionError):  # a double for JSON's inf, or very deep
        pass
    return jsonwriter.write_exactly(id)
