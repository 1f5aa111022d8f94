"""Groups and their commands, and what two of one name are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from qga import Caller, CommandGroup, QgaError, command
from qga.errors import PluginError
from qga.plugin.entry import Command
from qga.plugin.registry import Registry, command_names
from qga.policy.policy import Policy

AGENT = cast("Any", SimpleNamespace(name="the agent"))
CALLER = Caller("main", Policy())


class Greetings(CommandGroup):
    """Two commands, and state."""

    def __init__(self, agent: Any) -> None:
        super().__init__(agent)
        self.greeted: list[str] = []

    @command(access="audit", frozen=True)
    def qga_greet(self, first_name: str, *, loud: bool = False, caller: Caller) -> str:
        self.greeted.append(first_name)
        return f"{first_name} on {caller.channel}{'!' if loud else ''}"

    @command(blocking=True, success_response=False)
    def qga_leave(self) -> None:
        self.greeted.clear()

    @command()
    def qga_measure(self) -> float:
        return 0.5

    def not_a_command(self) -> None: ...


class SameName(CommandGroup):
    @command()
    def qga_other(self) -> None: ...

    @command()
    def qga_greet(self) -> None: ...


def registry_of(*groups: type[CommandGroup]) -> Registry:
    registry = Registry()
    for group in groups:
        registry.add(group(AGENT))
    return registry


def find(registry: Registry, name: str) -> Command:
    found = registry.get(name)
    assert found is not None
    return found


def test_names_on_the_wire_in_the_order_of_definition() -> None:
    registry = registry_of(Greetings)
    names = ["qga-greet", "qga-leave", "qga-measure"]
    assert [entry.name for entry in registry] == names == command_names([Greetings])
    assert len(registry) == 3
    assert registry.get("qga_greet") is None
    assert registry.get("not-a-command") is None


def test_a_plugin_runs_on_a_worker_unless_it_says_that_it_never_waits() -> None:
    class Plugin(CommandGroup):
        @command()
        def qga_unsaid(self) -> None: ...

        @command(blocking=False)
        def qga_quick(self) -> None: ...

        @command(blocking=True)
        def qga_slow(self) -> None: ...

    for plugin, expected in ((True, [True, False, True]), (False, [False, False, True])):
        registry = Registry()
        registry.add(Plugin(AGENT), plugin=plugin)
        assert [entry.blocking for entry in registry] == expected


def test_traits() -> None:
    registry = registry_of(Greetings)
    greet, leave = find(registry, "qga-greet"), find(registry, "qga-leave")
    assert (greet.access, greet.frozen, greet.blocking) == ("audit", True, False)
    assert (leave.access, leave.frozen, leave.blocking) == ("unrestricted", False, True)
    assert greet.success_response
    assert not leave.success_response
    assert not (greet.delimited or greet.overtakes)
    assert find(registry, "qga-measure").carries_number
    assert not greet.carries_number


def test_calling_a_command() -> None:
    registry = registry_of(Greetings)
    greet = find(registry, "qga-greet")
    arguments = greet.bind({"first-name": "Ada", "loud": True}, CALLER)
    assert greet.handler(**arguments) == "Ada on main!"
    group = registry.groups[0]
    assert isinstance(group, Greetings)
    assert group.greeted == ["Ada"]
    assert group.agent is AGENT


def test_the_caller_is_not_an_argument() -> None:
    greet = find(registry_of(Greetings), "qga-greet")
    assert greet.signature.describe()["arguments"] == {"first-name": "str", "*loud": "bool"}
    with pytest.raises(QgaError, match=r"^Parameter 'caller' is unexpected$"):
        greet.bind({"first-name": "x", "caller": {}}, CALLER)


def test_a_command_without_arguments_takes_none() -> None:
    leave = find(registry_of(Greetings), "qga-leave")
    assert leave.bind({}, CALLER) == {}
    with pytest.raises(QgaError, match=r"^Parameter 'x' is unexpected$"):
        leave.bind({"x": 1}, CALLER)


def test_two_registries_share_no_state() -> None:
    one, other = registry_of(Greetings), registry_of(Greetings)
    find(one, "qga-greet").handler("Ada", caller=CALLER)
    assert [cast("Greetings", each.groups[0]).greeted for each in (one, other)] == [["Ada"], []]


def test_a_command_defined_twice_is_an_error_with_both_places() -> None:
    registry = registry_of(Greetings)
    first = find(registry, "qga-greet").place
    with pytest.raises(PluginError) as raised:
        registry.add(SameName(AGENT))
    text = str(raised.value)
    assert text.startswith("command qga-greet is defined twice: in ")
    line = SameName.qga_greet.__code__.co_firstlineno
    assert first in text
    assert f"{__file__}:{line}" in text
    assert registry.get("qga-other") is None
    assert len(registry.groups) == 1
    assert find(registry, "qga-greet").place == first


def test_a_command_that_the_guest_cannot_offer_is_not_there() -> None:
    class Offers(CommandGroup):
        @command(available=lambda: False)
        def qga_absent(self) -> None: ...

        @command(available=lambda: True)
        def qga_present(self) -> None: ...

    registry = registry_of(Offers)
    assert [entry.name for entry in registry] == ["qga-present"]


def test_commands_of_a_base_class_are_there_too() -> None:
    class More(Greetings):
        @command()
        def qga_more(self) -> None: ...

    assert command_names([More]) == ["qga-greet", "qga-leave", "qga-measure", "qga-more"]


def test_life_cycle_methods_may_be_left_out() -> None:
    group = Greetings(AGENT)
    group.start()
    group.on_connect(CALLER)
    group.on_freeze()
    group.on_thaw()
    group.on_disconnect(CALLER)
    group.stop()


def test_a_secret_that_is_not_an_argument_is_refused_for_it_would_be_logged() -> None:
    class Misspelt(CommandGroup):
        @command(secret=("pasword",))
        def qga_log_in(self, password: str) -> None: ...

    with pytest.raises(PluginError, match=r"secret='pasword' is not an argument; its arguments:"):
        Registry().add(Misspelt(AGENT), plugin=True)


def test_what_changes_something_follows_from_the_access_unless_it_is_said() -> None:
    class Doors(CommandGroup):
        @command(access="audit")
        def qga_look(self) -> None: ...

        @command(access="file-write")
        def qga_paint(self) -> None: ...

        @command(access="unrestricted", changes=False)
        def qga_peep(self) -> None: ...

    changes = {entry.name: entry.changes for entry in registry_of(Doors)}
    assert changes == {"qga-look": False, "qga-paint": True, "qga-peep": False}
