"""Any JSON values as the arguments of each command, and any result that its type allows.

- Arguments are accepted just when each is of its declared type, and then the handler can be
  called with them; otherwise they are refused with a text.
- A result reads back, at the other end, as what the handler returned.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
from typing import Any, Literal, get_args, get_origin

from qga.errors import QgaError
from qga.plugin import schema
from qga.plugin.entry import Command
from qga.plugin.schema import UInt64
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.serving.output import Output
from qga.wire.decoder import Decoder
from qga.wire.jsonwriter import write_exactly
from qga.wire.payload import Base64, Payload
from qga.wire.protocol import Request, encode_error, encode_return
from tests.fuzz.draw import Draw, members
from tests.unit.test_interface import COMMANDS

CALLER = Caller("fuzz", Policy())
ENTRIES = [COMMANDS[name] for name in sorted(COMMANDS)]
READ_END, WRITE_END = os.pipe()
SIGNATURES = {entry.name: inspect.signature(entry.handler) for entry in ENTRIES}


def test_one(data: bytes) -> None:
    draw = Draw(data)
    command = draw.of(ENTRIES)
    if draw.byte() % 4 == 3:
        check_result(command, draw.exactly(command.signature.returns), draw.json())
    else:
        check_arguments(command, over_the_wire(command.name, arguments(command, draw)))


def arguments(command: Command, draw: Draw) -> dict[str, Any]:
    given = {
        argument.name: draw.roughly(argument.annotation)
        for argument in command.signature.arguments
        if draw.byte() % 8 < 7
    }
    if draw.byte() % 8 == 7:
        given[draw.text()] = draw.json()
    return given


def over_the_wire(name: str, given: dict[str, Any]) -> dict[str, Any]:
    message = write_exactly({"execute": name, "arguments": given})
    (request,) = Decoder().receive(message.encode("ascii"))
    assert request == Request(name, given), message
    return request.arguments


def check_arguments(command: Command, given: dict[str, Any]) -> None:
    try:
        bound = command.bind(given, CALLER)
    except QgaError as refusal:
        assert refusal.desc
        assert json.loads(encode_error(refusal))["error"]["desc"] == refusal.desc
        assert not fits(command, given), (command.name, given, refusal.desc)
        return
    assert fits(command, given), (command.name, given, bound)
    SIGNATURES[command.name].bind(**bound)
    for argument in command.signature.arguments:
        assert (argument.keyword in bound) == (argument.name in given)
        if argument.name in given:
            same(bound[argument.keyword], given[argument.name], argument.annotation)


def fits(command: Command, given: dict[str, Any]) -> bool:
    """Whether the arguments are of the declared types; said another way than the schema does."""
    types = {
        argument.name: (argument.annotation, argument.required)
        for argument in command.signature.arguments
    }
    return members_fit(types, given)


def members_fit(types: dict[str, tuple[Any, bool]], given: dict[str, Any]) -> bool:
    required = {name for name, (_, required) in types.items() if required}
    return required <= given.keys() <= types.keys() and all(
        is_of(value, types[name][0]) for name, value in given.items()
    )


def is_of(value: Any, annotation: Any) -> bool:
    if annotation is Any:
        return True
    if annotation in _RANGES:
        return type(value) is int and value in _RANGES[annotation]
    if annotation is float:
        return type(value) in (int, float)
    if annotation is Base64:
        return type(value) in (str, Base64)
    if annotation in (str, bool):
        return type(value) is annotation
    if get_origin(annotation) is Literal:
        return type(value) is str and value in get_args(annotation)
    if get_origin(annotation) is list:
        return type(value) is list and all(is_of(item, get_args(annotation)[0]) for item in value)
    if schema.is_struct(annotation):
        return type(value) is dict and members_fit(members(annotation), value)
    return any(is_of(value, branch) for branch in get_args(annotation))


_RANGES = {int: range(-(2**63), 2**63), UInt64: range(-(2**63), 2**64)}


def same(bound: Any, given: Any, annotation: Any) -> None:
    """What the handler gets is what came, but for negative numbers where none can be."""
    expected = Base64(str(given)) if annotation is Base64 else unsigned(given, annotation)
    assert type(bound) is type(expected)
    assert bound == expected


def unsigned(given: Any, annotation: Any) -> Any:
    """A negative uint64 modulo 2^64, as QAPI has it, wherever in the value it is."""
    if annotation == UInt64:
        return given % 2**64
    if get_origin(annotation) is list:
        return [unsigned(item, get_args(annotation)[0]) for item in given]
    if schema.is_struct(annotation):
        types = members(annotation)
        return {name: unsigned(value, types[name][0]) for name, value in given.items()}
    return given


def check_result(command: Command, result: Any, id: Any) -> None:
    output = Output()
    output.append(encode_return(result, id, command.carries_number))
    size = output.size
    output.write_to(WRITE_END)
    line = os.read(READ_END, 2 * size)
    assert len(line) == size
    assert line.endswith(b"}\n")
    assert line.isascii()
    assert line[:-1].decode().isprintable(), line
    expected = {} if result is None else json.loads(json.dumps(result, default=_base64))
    assert json.loads(line) == {"return": expected, "id": id}


def _base64(payload: Payload) -> str:
    return base64.b64encode(payload.data).decode("ascii")
