"""The standard commands against tests/interface.json, the interface of QEMU's guest agent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pytest

from qga.plugin import discovery, schema
from qga.plugin.entry import Command
from qga.plugin.registry import Registry
from qga.settings.config import Config

INTERFACE = json.loads((Path(__file__).parent.parent / "interface.json").read_text())
AGENT: Any = SimpleNamespace(config=Config(), frozen=False)


def standard_commands() -> dict[str, Command]:
    registry = Registry()
    for group in discovery.discover(None, pytest.fail):
        if group.__module__.startswith("qga.commands."):
            registry.add(group(AGENT))
    return {entry.name: entry for entry in registry if not entry.name.startswith("qga-")}


COMMANDS = standard_commands()


def named_types() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each type that a command speaks of by a name, and the module that it is defined in."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for entry in COMMANDS.values():
        taken = entry.signature
        for annotation in (taken.returns, *(each.annotation for each in taken.arguments)):
            for name, kind, namespace in named_parts(annotation, taken.namespace):
                found[name] = (kind, namespace)
    return found


def named_parts(
    annotation: Any, namespace: dict[str, Any]
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    if get_origin(annotation) is list:
        yield from named_parts(get_args(annotation)[0], namespace)
    elif schema.is_struct(annotation):
        own = vars(sys.modules[annotation.__module__])
        yield annotation.__name__, annotation, own
        for kind, _ in schema.members(annotation).values():
            yield from named_parts(kind, own)
    elif get_origin(annotation) is Literal or get_origin(annotation) in schema._UNIONS:
        yield schema.describe(annotation, namespace), annotation, namespace
        for part in get_args(annotation):
            yield from named_parts(part, namespace)


TYPES = named_types()


def described(annotation: Any, namespace: dict[str, Any]) -> Any:
    """A type as interface.json has it."""
    if get_origin(annotation) is Literal:
        return {"kind": "enum", "data": list(get_args(annotation))}
    if get_origin(annotation) in schema._UNIONS:
        branches = [schema.describe(part, namespace) for part in get_args(annotation)]
        return {"kind": "alternate", "data": sorted(branches)}
    members = {
        ("" if required else "*") + name: schema.describe(kind, namespace)
        for name, (kind, required) in schema.members(annotation).items()
    }
    return {"kind": "struct", "data": members}


def on_the_wire(expected: Any) -> Any:
    """An entry of interface.json without what does not show on the wire.

    An alternate's branches have names there, and a union is the struct of all their members.
    """
    if expected["kind"] == "alternate":
        return {"kind": "alternate", "data": sorted(expected["data"].values())}
    if expected["kind"] == "union":
        return {"kind": "struct", "data": all_members(expected)}
    return expected


def all_members(union: Any) -> dict[str, Any]:
    """A branch's members are optional where the discriminator has values without a branch."""
    enum = INTERFACE["types"][union["base"][union["discriminator"]]]["data"]
    prefix = "" if set(enum) == set(union["data"]) else "*"
    members = dict(union["base"])
    for branch in union["data"].values():
        for name, kind in INTERFACE["types"][branch]["data"].items():
            members[prefix + name.lstrip("*") if prefix else name] = kind
    return members


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command(name: str) -> None:
    expected = INTERFACE["commands"][name]
    entry = COMMANDS[name]
    assert entry.signature.describe() == {
        "arguments": expected["arguments"],
        "returns": expected["returns"],
    }
    assert entry.success_response is expected["success-response"]


@pytest.mark.parametrize("name", TYPES)
def test_a_type(name: str) -> None:
    assert described(*TYPES[name]) == on_the_wire(INTERFACE["types"][name])


def test_there_is_something_to_compare() -> None:
    assert {"guest-ping", "guest-file-read", "guest-exec"} <= set(COMMANDS)
    assert {"GuestFileRead", "GuestFileWhence", "QGASeek", "GuestExecStatus"} <= set(TYPES)


def test_the_names_of_commands_that_are_not_qemu_s_begin_with_qga() -> None:
    assert set(COMMANDS) <= set(INTERFACE["commands"])
