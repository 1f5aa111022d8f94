"""No secret of a request is in the log, whatever becomes of the request."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from qga.plugin.discovery import discover
from qga.plugin.registry import commands_of
from tests.integration.agent_process import Client, Refused, listening

SECRET = "hunter2-\\\u00fc'x"
ENCODED = b64encode(SECRET.encode()).decode()

PLUGIN = """
from __future__ import annotations

from qga import CommandGroup, QgaError, command


class Vault(CommandGroup):
    @command(access="audit", secret=("token", "env="))
    def qga_vault(self, token: str, env: list[str], way: str) -> None:
        if way == "quoted":
            raise QgaError(f"{token!r} is wrong")
        if way == "number":
            int(token)
        if way == "key":
            {}[token + "\\n"]
        if way == "part":
            raise ValueError(token[:9])
        if way == "system":
            raise OSError(token)
        if way == "part of system":
            raise OSError(token[:9])
        if way == "chain":
            try:
                int(token)
            except ValueError as error:
                raise RuntimeError("as above") from error
        raise ValueError(env[0])
"""
WAYS = ("quoted", "number", "key", "part", "system", "part of system", "chain", "env")

ARGUMENTS: dict[str, dict[str, Any]] = {
    "guest-exec": {"path": "/none"},
    "guest-file-write": {"handle": 1},
    "guest-set-user-password": {"username": "in:valid", "crypted": False},
    "guest-ssh-add-authorized-keys": {"username": "nobody-of-the-test"},
    "guest-ssh-remove-authorized-keys": {"username": "nobody-of-the-test"},
    "qga-exec": {"path": "/none"},
    "qga-exec-write": {"pid": 1},
    "qga-grow-filesystem": {"mountpoint": "/none"},
    "qga-resync": {"time": -1},
    "qga-set-identity": {},
    "qga-tunnel-exchange": {"tunnel": 1},
}
"""What makes each command with a secret fail without an effect."""


def secret_arguments() -> dict[str, tuple[str, ...]]:
    found = {
        name: traits.secret
        for group in discover(None, print)
        for name, _, traits in commands_of(group)
        if traits.secret
    }
    assert found.keys() == ARGUMENTS.keys()
    return found


def ask(client: Client, command: str, arguments: dict[str, Any]) -> None:
    """The client does learn what became of its request."""
    try:
        client.call(command, **arguments)
    except Refused:
        return
    raise AssertionError(f"{command} has succeeded")


def leaks(log: str) -> list[str]:
    secrets = (SECRET[:7], ENCODED[:9])
    return [line for line in log.splitlines() if any(secret in line for secret in secrets)]


@pytest.mark.parametrize("verbose", [False, True])
def test_faults_and_errors_of_a_command(tmp_path: Path, verbose: bool) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "vault.py").write_text(PLUGIN)
    config = f"[general]\nplugin-dir={plugins}\n"
    with listening(tmp_path, *["-v"] * verbose, config=config) as agent, agent.connect() as client:
        for way in WAYS:
            arguments = {"token": SECRET, "env": [f"KEY={SECRET}"], "way": way}
            ask(client, "qga-vault", arguments)
    assert leaks(agent.log) == []
    # What helps to mend it is there.
    assert len(re.findall("error in qga-vault:", agent.log)) == len(WAYS) - 1
    assert "int(token)" in agent.log
    assert "ValueError (text hidden)" in agent.log


@pytest.mark.parametrize(("command", "secrets"), secret_arguments().items())
def test_errors_of_our_commands(tmp_path: Path, command: str, secrets: tuple[str, ...]) -> None:
    with listening(tmp_path, "-v") as agent, agent.connect() as client:
        for name in (mark.rstrip("=").replace("-", "_") for mark in secrets):
            for value in (ENCODED, SECRET, [SECRET], [f"A={SECRET}"], {SECRET: SECRET}):
                ask(client, command, {**ARGUMENTS[command], name: value})
                ask(client, command, {**ARGUMENTS[command], name: value, "unknown": SECRET})
    assert command in agent.log
    assert leaks(agent.log) == []
