"""A guest whose filesystems are frozen: every command of qgactl reports that, and what to do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qga.ctl.cli import app
from qga.ctl.usage import command_of
from tests.integration.qgactl_process import QGACTL, environment, qgactl
from tests.unit.client_peer import Handler, Peer, Start
from tests.unit.conftest import start as start
from tests.unit.host_root import HostRoot, qemu

NOT_FOUND = "The command {} has not been found"
NEW_WORDS = "Command {} has been disabled: the command is not allowed"
OLD_WORDS = "Command {} has been disabled: the agent is in frozen state"  # before QEMU 9.1

# What a frozen guest answers as ever, and what is not about one guest.
ANSWERED = {"check", "info", "ping", "status", "thaw", "wait", "watch"}
LOCAL = {"channel", "exporter", "help", "list", "mcp", "port"}
SEVERAL = {"checkmk", "doctor", "top"}
BY_QEMU = {"snapshot"}  # looks for QEMU's monitor first

ARGUMENTS: dict[str, list[str]] = {
    "call": ["guest-get-osinfo"],
    "cat": ["/etc/hosts"],
    "cp": ["guest:/etc/hosts", "copy"],
    "exec": ["--", "true"],
    "forward": ["0:127.0.0.1:80"],
    "freeze": ["--", "touch", "ran"],
    "grow": ["/"],
    "identity": ["--machine-id"],
    "passwd": ["--stdin", "root"],
    "proxy": ["22"],
    "ssh-keys": ["list", "root"],
    "suspend": ["ram"],
    "users": [],
    "zabbix": ["--discover", "disks"],
}


class Frozen(dict[str, Handler]):
    """The handlers of such a guest."""

    def __init__(self, words: str, state: Any) -> None:
        enabled = {"guest-info": True, "guest-ping": True, "guest-fsfreeze-status": True}
        names = [*enabled, "guest-get-osinfo", "guest-shutdown", "guest-suspend-ram"]
        commands = [
            {"name": name, "enabled": name in enabled, "success-response": True} for name in names
        ]
        super().__init__(
            {
                "guest-info": lambda _: {"version": "10.2.0", "supported_commands": commands},
                "guest-ping": lambda _: {},
                "guest-fsfreeze-status": lambda _: "frozen",
                "guest-fsfreeze-freeze": self.refuse("guest-fsfreeze-freeze", words),
                "qga-get-freeze": lambda _: state,
            }
        )
        self._words = words

    @staticmethod
    def refuse(name: str, words: str) -> Handler:
        return lambda _: OSError("CommandNotFound", words.format(name))

    def __missing__(self, name: str) -> Handler:
        return self.refuse(name, self._words)


def named() -> list[str]:
    return [
        name
        for name in command_of(app).commands
        if name not in ANSWERED | LOCAL | SEVERAL | BY_QEMU
    ]


@pytest.fixture(
    params=[
        (NEW_WORDS, {"status": "frozen", "seconds": 125.0, "thaw-in": 475.0}, True),
        (NEW_WORDS, OSError("CommandNotFound", NOT_FOUND.format("qga-get-freeze")), False),
        (OLD_WORDS, OSError("CommandNotFound", NOT_FOUND.format("qga-get-freeze")), False),
    ],
    ids=["ours", "10.2", "7.2"],
)
def frozen(request: pytest.FixtureRequest, start: Start) -> tuple[Peer, bool]:
    words, state, knows_since = request.param
    return start(Frozen(words, state)), knows_since


@pytest.mark.parametrize("name", named())
def test_every_command_says_it_first(
    frozen: tuple[Peer, bool], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, knows_since = frozen
    monkeypatch.chdir(tmp_path)
    arguments = ARGUMENTS.get(name, [])
    status, out, err = qgactl(name, *arguments, address=peer.address, stdin="secret\n")
    assert status == (125 if name in ("exec", "freeze", "shell") else 1), err
    assert (out, err.count("\n")) == ("", 1), err
    assert err.startswith(f"qgactl: {peer.address} is frozen")
    assert err.endswith("; thaw it with `qgactl thaw`\n")
    assert ("(2 min ago)" in err) is knows_since
    assert list(tmp_path.glob("[!s]*")) == []  # nothing but the peer's socket


def test_a_check_is_no_alarm(frozen: tuple[Peer, bool]) -> None:
    """A backup takes a moment, and the agent answers."""
    peer, knows_since = frozen
    assert qgactl("check", "--agent", address=peer.address)[0] == 0
    status, out, err = qgactl("check", "--agent", "--memory", "90%", address=peer.address)
    assert (status, err) == (3, "")
    assert out.startswith(f"UNKNOWN - {peer.address}: frozen")
    assert ("(2 min ago)" in out) is knows_since


def test_a_command_that_is_disabled_otherwise(start: Start) -> None:
    """If the administrator has disabled the command, the advice is different."""
    peer = start(Frozen(NEW_WORDS, {"status": "thawed"}))
    status, _, err = qgactl("os", address=peer.address)
    assert status == 1
    assert "frozen" not in err
    assert err.endswith("; qgactl doctor shows where to look\n")


def test_as_json_the_error_is_the_same(frozen: tuple[Peer, bool]) -> None:
    status, out, err = qgactl("--json", "os", address=frozen[0].address)
    assert (status, out) == (1, "")
    assert " is frozen" in err


def test_top(frozen: tuple[Peer, bool]) -> None:
    peer, _ = frozen
    _, out, _ = qgactl("--json", "top", "--count", "1", address=peer.address)
    assert "the guest's filesystems are frozen" in json.loads(out)["error"]


def test_doctor(frozen: tuple[Peer, bool]) -> None:
    """It reports the freeze first, and does not list the commands that the freeze disables."""
    status, out, err = qgactl("doctor", address=frozen[0].address)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    answers = next(number for number, line in enumerate(lines) if " answer: " in line)
    assert lines[answers + 1] == "warning filesystems: frozen"
    assert lines[answers + 2].endswith(": qgactl thaw")
    assert "guest-get-osinfo" not in out
    assert "disabled" not in out
    assert "clock: cannot be checked while filesystems are frozen" in out


def test_list(frozen: tuple[Peer, bool], tmp_path: Path) -> None:
    peer, _ = frozen
    root = HostRoot(tmp_path / "host")
    root.process(4711, qemu("web", "/socket"))
    (root.folder / "socket").symlink_to(peer.address.removeprefix("unix:"))
    listed = subprocess.run(
        [*QGACTL, "list", "--json"],
        stdout=subprocess.PIPE,
        env={**environment(None), "QGA_HOST_ROOT": str(root.folder)},
        timeout=60,
        check=True,
    )
    (found,) = json.loads(listed.stdout)
    assert (found["name"], found["state"], found["version"]) == ("web", "frozen", "10.2.0")
