"""Every command with every integer at its extremes: an error in words, never one of Python's."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga.plugin import discovery, schema
from qga.plugin.registry import INJECTED, commands_of
from tests.integration.agent_process import Client, listening, request

filesystems: Any = import_module("qga.commands.filesystems")
mounts: Any = import_module("qga.commands._mounts")

EXTREMES = (-(2**63), -(2**31), -1, 0, 1, 2**31, 2**32, 2**63 - 1)

CHANGES_THE_MACHINE = {
    "guest-fstrim",
    "guest-set-memory-blocks",
    "guest-set-time",
    "guest-set-vcpus",
}
PROGRAMS = {"guest-exec-status", "qga-exec-read", "qga-exec-resize", "qga-exec-write"}
OTHERS = {
    "path": "/etc/passwd",
    "whence": "cur",
    "buf-b64": "YQ==",
    "port": "none",
    "signal": "WINCH",
}


def integers_of(name: str, arguments: tuple[schema.Argument, ...]) -> list[str]:
    """Those that may be anything: what tells a file or a program is not."""
    return [a.name for a in arguments if a.annotation is int and a.name not in ("handle", "pid")]


def commands() -> Iterator[tuple[str, tuple[schema.Argument, ...]]]:
    for group in discovery.discover(None, print):
        for name, attribute, _ in commands_of(group):
            arguments = schema.signature(getattr(group, attribute), INJECTED).arguments
            if integers_of(name, arguments) and name not in CHANGES_THE_MACHINE:
                yield name, arguments


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/dev/zero", "/proc/self/mem", "/proc/self/status"]
)
def test_an_error_in_words(tmp_path: Path, path: str) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        handle = client.call("guest-file-open", path=path)
        pid = client.call("qga-exec", path="/bin/cat", tty=True)["pid"]
        tried = 0
        for name, arguments in commands():
            integers = integers_of(name, arguments)
            fixed = {**OTHERS, "path": path, "handle": handle, "pid": pid, "tty": True}
            if name == "qga-exec":
                fixed["path"] = "/bin/true"
            given = {a.name: fixed[a.name] for a in arguments if a.name in fixed}
            for values in itertools.product(EXTREMES, repeat=len(integers)):
                told = ask(client, name, {**given, **dict(zip(integers, values))})
                assert "Error" not in told, (name, values)
                assert "exception" not in told, (name, values)
                tried += 1
        assert tried > 400
        client.call("qga-exec-signal", pid=pid, signal="KILL")
        assert "Traceback" not in agent.log


def ask(client: Client, name: str, arguments: dict[str, Any]) -> str:
    client.send(request(name, **arguments))
    reply = json.loads(client.line().lstrip(b"\xff"))
    return str(reply["error"]["desc"]) if "error" in reply else ""


@pytest.mark.parametrize(("minimum", "asked"), [(-1, 2**64 - 1), (0, 0), (2**63 - 1, 2**63 - 1)])
def test_a_trim_of_any_minimum(monkeypatch: pytest.MonkeyPatch, minimum: int, asked: int) -> None:
    """A negative number is the unsigned one of the same bits, as in the original."""

    def trim(_fd: int, _request: int, argument: bytes) -> bytes:
        assert int.from_bytes(argument[16:], "little") == asked
        return argument

    monkeypatch.setattr(fcntl, "ioctl", trim)
    result = filesystems._trim(root(), minimum)
    assert "error" not in result


def root() -> Any:
    number = os.stat("/").st_dev
    return mounts.Mount((os.major(number), os.minor(number)), ["/"], "ext4", "/dev/root")
