"""Verbs show the direction of a call: the rule is in docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga import CommandGroup
from qga.channels.base import Channel
from qga.plugin.discovery import discover
from qga.plugin.registry import Registry

REPOSITORY = Path(__file__).parents[2]
AGENT = sorted(
    path
    for path in (*REPOSITORY.glob("qga/**/*.py"), *REPOSITORY.glob("commands/*.py"))
    if not {"client", "ctl"} & set(path.parts)
)
CHANNELS = ("isa_serial", "virtio_serial", "unix_listen", "vsock_listen")


def calls_from_outside(source: str) -> list[str]:
    """Calls of a `do_…` method of some other object."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr.startswith("do_")
        and ast.unparse(node.func.value) not in ("self", "cls", "super()")
    ]


def overridden(kind: type, base: type) -> Iterator[str]:
    """Methods of `base`, or of a class between, that a class below it replaces."""
    between = [each for each in kind.__mro__ if issubclass(each, base)]
    for at, each in enumerate(between):
        for name, value in vars(each).items():
            inherited = any(name in vars(above) for above in between[at + 1 :])
            is_method = callable(value) or isinstance(value, classmethod)
            if inherited and is_method and not name.startswith("_"):
                yield name


def kinds() -> Iterator[tuple[type, type]]:
    for name in CHANNELS:
        module = import_module(f"qga.channels.{name}")
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                yield value, Channel
    for group in discover(None, pytest.fail):
        yield group, CommandGroup


def test_what_is_overridden_is_called_by_its_own_object_only() -> None:
    found = {
        str(path.relative_to(REPOSITORY)): calls
        for path in AGENT
        if (calls := calls_from_outside(path.read_text()))
    }
    assert found == {}
    assert calls_from_outside("channel.do_open()") == ["channel.do_open()"]


def test_what_a_channel_or_a_group_overrides_says_so() -> None:
    found = {(kind, name) for kind, base in kinds() for name in overridden(kind, base)}
    assert {kind for kind, _ in found}
    assert not {each for each in found if not each[1].startswith(("do_", "on_"))}


def test_a_method_that_is_called_and_overridden_is_found() -> None:
    class Deaf(Channel):
        def open(self) -> None: ...

    assert list(overridden(Deaf, Channel)) == ["open"]


@pytest.mark.parametrize(
    "names", [("start", "stop", "diagnose"), ("on_start", "on_stop", "do_diagnose")]
)
def test_old_and_new_names_of_a_plugins_methods_work(names: tuple[str, ...]) -> None:
    start, stop, diagnose = names
    called: list[str] = []

    def of_class(cls: type, config: Any) -> Iterator[Any]:
        called.append("diagnose")
        return iter(())

    body = {
        start: lambda self: called.append("start"),
        stop: lambda self: called.append("stop"),
        diagnose: classmethod(of_class),
    }
    group: Any = type("Group", (CommandGroup,), body)
    registry = Registry()
    registry.add(group(None))
    [made] = registry.groups
    made.start()
    made.stop()
    assert list(group.diagnose(None)) == []
    assert called == ["start", "stop", "diagnose"]
