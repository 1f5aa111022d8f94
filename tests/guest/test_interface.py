"""Every reply of every command has the shape that tests/interface.json gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .agent_socket import AgentSocket
from .image import CHECKOUT
from .vm import Guest

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

INTERFACE = json.loads((CHECKOUT / "tests/interface.json").read_text())
TYPES = INTERFACE["types"]
# What is never answered with success: the guest is gone, or asleep.
SILENT = {name for name, each in INTERFACE["commands"].items() if not each["success-response"]}
ANSWERED = INTERFACE["commands"].keys() - SILENT

INTEGERS = {"int": range(-(2**63), 2**63), "uint64": range(2**64)}


def faults(value: Any, kind: Any, where: str) -> Iterator[str]:
    """How a value differs from its type, at any depth."""
    if isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{where} is no list: {value!r}"
            return
        for number, element in enumerate(value):
            yield from faults(element, kind[0], f"{where}[{number}]")
    elif kind is None:
        if value != {}:
            yield f"{where} is not empty: {value!r}"
    elif kind not in TYPES:
        if not is_simple(value, kind):
            yield f"{where} is no {kind}: {value!r}"
    elif TYPES[kind]["kind"] == "enum":
        if value not in TYPES[kind]["data"]:
            yield f"{where} is none of {TYPES[kind]['data']}: {value!r}"
    else:
        yield from faults_of_struct(value, members(TYPES[kind], value), where)


def is_simple(value: Any, kind: str) -> bool:
    if kind in INTEGERS:
        return type(value) is int and value in INTEGERS[kind]
    if kind == "number":
        return type(value) in (int, float)
    return type(value) is {"str": str, "bool": bool}[kind]


def members(described: Any, value: Any) -> dict[str, Any]:
    """A struct's members; those of a union are its base's and those of the branch in use."""
    if described["kind"] == "struct":
        return dict(described["data"])
    branch = value[described["discriminator"]]
    return {**described["base"], **TYPES[described["data"][branch]]["data"]}


def faults_of_struct(value: Any, expected: dict[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no object: {value!r}"
        return
    required = {name for name in expected if not name.startswith("*")}
    kinds = {name.lstrip("*"): kind for name, kind in expected.items()}
    for name in sorted(required - value.keys()):
        yield f"{where} lacks {name}"
    for name in sorted(value.keys() - kinds.keys()):
        yield f"{where}.{name} is unknown to the interface"
    for name in sorted(value.keys() & kinds.keys()):
        yield from faults(value[name], kinds[name], f"{where}.{name}")


class Recorder:
    """Executes commands and keeps every result."""

    def __init__(self, agent: AgentSocket) -> None:
        self.agent = agent
        self.results: list[tuple[str, Any]] = []

    def __call__(self, command: str, /, **arguments: Any) -> Any:
        result = self.agent.execute(command, **arguments)
        self.results.append((command, result))
        return result


def use_every_command(ask: Recorder) -> None:
    """Make each command succeed, with as many members in its reply as possible."""
    ask("guest-sync", id=1)
    ask("guest-sync-delimited", id=2)
    for command in sorted(ANSWERED):
        if not INTERFACE["commands"][command]["arguments"] and "fsfreeze" not in command:
            ask(command)
    ask("guest-set-time")
    use_files(ask)
    pid = ask("guest-exec", path="/bin/sh", arg=["-c", "echo 1; echo 2 >&2"], capture_output=True)
    while not ask("guest-exec-status", **pid)["exited"]:
        pass
    ask("guest-fsfreeze-freeze-list", mountpoints=["/mnt/usb"])
    ask("guest-fsfreeze-status")
    ask("guest-fsfreeze-thaw")
    ask("guest-fsfreeze-freeze")
    ask("guest-fsfreeze-thaw")
    ask("guest-fstrim", minimum=0)
    ask("guest-set-vcpus", vcpus=[{"logical-id": 1, "online": True}])
    ask("guest-set-memory-blocks", mem_blks=[{"phys-index": 0, "online": True}])
    ask("guest-set-memory-blocks", mem_blks=[{"phys-index": 99999, "online": True}])
    ask("guest-set-user-password", username="person", password="c2VjcmV0", crypted=False)
    ask("guest-ssh-add-authorized-keys", username="person", keys=["ssh-rsa A"], reset=True)
    ask("guest-ssh-get-authorized-keys", username="person")
    ask("guest-ssh-remove-authorized-keys", username="person", keys=["ssh-rsa A"])


def use_files(ask: Recorder) -> None:
    handle = ask("guest-file-open", path="/run/interface", mode="w+")
    ask("guest-file-write", handle=handle, buf_b64="YWJj")
    ask("guest-file-flush", handle=handle)
    ask("guest-file-seek", handle=handle, offset=0, whence="set")
    ask("guest-file-read", handle=handle)
    ask("guest-file-close", handle=handle)


@pytest.mark.usefixtures("disks", "person", "logged_in")
def test_every_reply(guest: Guest, agent: AgentSocket) -> None:
    ask = Recorder(agent)
    use_every_command(ask)
    assert {command for command, _ in ask.results} == ANSWERED
    found = [
        fault
        for command, result in ask.results
        for fault in faults(result, INTERFACE["commands"][command]["returns"], command)
    ]
    assert found == []


def test_info_lists_the_43_commands(agent: AgentSocket) -> None:
    commands = agent.execute("guest-info")["supported_commands"]
    listed = [each for each in commands if not each["name"].startswith("qga-")]
    expected = {
        name: {"name": name, "enabled": True, "success-response": each["success-response"]}
        for name, each in INTERFACE["commands"].items()
    }
    assert {each["name"]: each for each in listed} == expected
    assert len(listed) == 43
