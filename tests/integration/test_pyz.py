"""The agent as one file (make pyz), run by a Python that has nothing but its own library."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.integration.agent_process import (
    COMMAND,
    AgentProcess,
    Client,
    listening,
    refused_start,
    wait_for,
)

BUILD = Path(__file__).parents[2] / "packaging/build-pyz"
BARE = (sys.executable, "-I", "-S")
PLUGIN = """
from qga import CommandGroup, command

class Greetings(CommandGroup):
    @command(access="audit")
    def qga_greet(self, name: str) -> str:
        return f"Hello, {name}!"
"""


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pyz") / "qga.pyz"
    subprocess.run([BUILD, path], check=True, stdout=subprocess.PIPE)
    return path


@contextmanager
def served(pyz: Path, *options: str, **how: Any) -> Iterator[tuple[AgentProcess, Client]]:
    """The agent, started as `qga.pyz` from where that is."""
    how = {"command": (*BARE, pyz.name), "cwd": pyz.parent, **how}
    folder = Path(mkdtemp(prefix="state", dir=pyz.parent))
    with listening(folder, *options, **how) as agent, agent.connect() as client:
        yield agent, client


def bare(*arguments: object, cwd: object = "/") -> str:
    argv = [*BARE, *map(str, arguments)]
    done = subprocess.run(argv, cwd=str(cwd), capture_output=True, text=True, check=True)
    return done.stdout


def test_help_and_version(pyz: Path) -> None:
    ours = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert bare(pyz, "--help") == ours.stdout
    assert "qga " in bare("qga.pyz", "--version", cwd=pyz.parent)
    assert bare(pyz, "--dump-conf").startswith("[general]")


def test_it_has_all_commands(pyz: Path, tmp_path: Path) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        expected = client.call("guest-info")["supported_commands"]
    with served(pyz) as (_agent, client):
        assert client.call("guest-info")["supported_commands"] == expected


def test_late_imports_and_helpers_work_without_the_first_directory(pyz: Path) -> None:
    """Started by a relative path, it goes to / to serve in the background."""
    with served(pyz, "-d", "-f", str(pyz.parent / "pid")) as (agent, client):
        pid = int((pyz.parent / "pid").read_text())
        try:
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            started = client.call("guest-exec", path="/bin/echo", arg=["hi"], capture_output=True)
            status = wait_for(
                lambda: (seen := client.call("guest-exec-status", **started))["exited"] and seen,
                "the program to end",
            )
            assert b64decode(status["out-data"]) == b"hi\n"
            assert client.call("guest-get-fsinfo")
            assert client.call("qga-exec", path="/bin/true")["pid"]
            assert "No such file" in client.refusal("guest-ssh-get-authorized-keys", username="bin")
        finally:
            os.kill(pid, 15)
            wait_for(lambda: not agent.path.exists(), "the agent to end")


def test_plugins_from_a_directory(pyz: Path, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "greetings.py").write_text(PLUGIN)
    (plugins / "greetings.py").chmod(0o644)
    with served(pyz, config=f"[general]\nplugin-dir={plugins}\n") as (agent, client):
        assert client.call("qga-greet", name="raw") == "Hello, raw!", agent.log


def test_what_needs_a_package_names_it(pyz: Path, tmp_path: Path) -> None:
    with served(pyz) as (agent, client):
        for command in ("qga-get-metrics", "qga-get-memory"):
            assert client.refusal(command) == (
                "this needs psutil, which the guest's Python lacks; install python3-psutil"
            )
        assert "Traceback" not in agent.log
    master, slave = os.openpty()
    try:
        complaint = refused_start(
            tmp_path, method="isa-serial", path=os.ttyname(slave), command=(*BARE, str(pyz))
        )
    finally:
        os.close(master)
        os.close(slave)
    assert "isa-serial needs pyserial, which this Python lacks; install python3-serial" in complaint


def test_on_a_read_only_filesystem(pyz: Path) -> None:
    read_only = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    launcher = ("unshare", "--mount", "/bin/sh", "-c", read_only, str(pyz))
    with served(pyz, launcher=launcher) as (agent, client):
        assert client.call("guest-get-osinfo")["kernel-release"] == os.uname().release
        mounts = Path(f"/proc/{agent.process.pid}/mounts").read_text()
        assert any(f" {pyz} " in line and " ro," in line for line in mounts.splitlines())
