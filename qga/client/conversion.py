"""Converts replies to the types in qga.client.results.

A type is a NamedTuple, whose fields are the members of a JSON object, or a list, a tuple of
any length, Optional, str, int, float, bool, or bytes (base64 on the wire). A member has the name
of its field, with `-` for `_`, unless `Annotated` gives its name; one whose field has a
default may be missing or null. Members that a type does not have are left out, since every
release of QEMU adds some.

The guest is not trusted: whatever does not fit raises ProtocolError, no integer is larger than
what the agent's own types hold, and no list is longer than MOST_ENTRIES.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from qga.client.errors import ProtocolError
from qga.wire import base64
from qga.wording import counted

T = TypeVar("T")

JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}

INTEGERS = range(-(2**63), 2**64)  # int64 and uint64

# Of one list; the longest honest ones are the blocks of a large memory: 4 TiB by 256 MiB.
MOST_ENTRIES = 1 << 14


def converted(kind: type[T], reply: object) -> T:
    """Convert `reply` to the type `kind`; ProtocolError if it does not fit."""
    return cast(T, _shaped(kind, reply, ""))


def member(kind: type[T], name: str, reply: object) -> T:
    """Convert the member `name` of `reply`; ProtocolError if it is missing or does not fit."""
    value = optional(kind, name, reply)
    if value is None:
        raise ProtocolError(f"the reply lacks '{name}'")
    return value


def optional(kind: type[T], name: str, reply: object) -> T | None:
    """As `member`, but None if it is missing."""
    value = _checked(dict, reply, "").get(name)
    return None if value is None else cast(T, _shaped(kind, value, name))


def share(count: int, whole: int) -> int:
    """`count` of `whole` bytes, which an agent claims to have taken. Raises ProtocolError."""
    if not 0 <= count <= whole:
        raise ProtocolError(f"took {count} of {counted(whole, 'byte')}")
    return count


def plain(value: Any) -> Any:
    """A value of such a type as JSON has it on the wire; what is None is left out."""
    if isinstance(value, bytes):
        return encode_base64(value)
    if hasattr(value, "_fields"):
        kind: Any = type(value)
        members = zip(_members(kind), value)
        return {wire: plain(each) for (_, wire, _), each in members if each is not None}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def encode_base64(data: bytes | bytearray) -> str:
    return base64.encode(data).decode("ascii")


def _shaped(kind: Any, value: object, path: str) -> Any:
    origin = get_origin(kind)
    if origin is Union:
        return None if value is None else _shaped(get_args(kind)[0], value, path)
    if origin in (list, tuple):
        item = get_args(kind)[0]
        entries = _checked(list, value, path)
        if len(entries) > MOST_ENTRIES:
            raise ProtocolError(f"{_place(path)} has more than {MOST_ENTRIES} entries")
        numbered = enumerate(entries)
        return origin(_shaped(item, entry, f"{path}[{number}]") for number, entry in numbered)
    if hasattr(kind, "_fields"):
        return _struct(kind, _checked(dict, value, path), path)
    if kind is bytes:
        return _decoded(_checked(str, value, path), path)
    return _number(value, path) if kind is float else _checked(kind, value, path)


def _struct(kind: Any, reply: dict[str, object], path: str) -> Any:
    fields = {}
    for field, wire, inner in _members(kind):
        place = f"{path}.{wire}" if path else wire
        value = reply.get(wire)
        if value is not None:
            fields[field] = _shaped(inner, value, place)
        elif field not in kind._field_defaults:
            raise ProtocolError(f"the reply lacks '{place}'")
    return kind(**fields)


@cache
def _members(kind: Any) -> tuple[tuple[str, str, Any], ...]:
    """Each field's name, its member's name, and its type."""
    found = []
    for field, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) is Annotated:
            inner, wire = get_args(hint)
            found.append((field, wire, inner))
        else:
            found.append((field, field.replace("_", "-"), hint))
    return tuple(found)


def _checked(kind: type[T], value: Any, path: str) -> T:
    """`value`, if it is of that very type (in Python, True is an int too)."""
    if type(value) is not kind:
        raise ProtocolError(f"{_place(path)} is not {JSON_NAMES[kind]}")
    if kind is int and value not in INTEGERS:
        raise ProtocolError(f"{_place(path)} is a number of more than 64 bits")
    return value


def _number(value: object, path: str) -> float:
    if type(value) is int:
        return float(_checked(int, value, path))
    number = _checked(float, value, path)
    if not math.isfinite(number):
        raise ProtocolError(f"{_place(path)} is not a finite number")
    return number


def _decoded(text: str, path: str) -> bytes:
    try:
        return base64.decode(text)
    except ValueError:
        raise ProtocolError(f"{_place(path)} is not valid base64") from None


def _place(path: str) -> str:
    return f"'{path}' of the reply" if path else "the reply"
