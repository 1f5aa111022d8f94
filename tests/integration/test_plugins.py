"""Plugins in a running agent: installed ones, those in plugin-dir, and those that are skipped."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qga.client import AgentError, GuestAgent
from tests.integration.agent_process import listening
from tests.integration.client_agents import PATIENCE, wait_until_it_listens

EXAMPLE = Path(__file__).parent.parent / "plugin_example"

PLUGIN = """
from qga import CommandGroup, command

class Local(CommandGroup):
    @command(access="audit")
    def qga_local(self) -> str:
        return "local"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with the example as pip installs it: its module and its metadata."""
    folder = tmp_path / "site"
    metadata = folder / "qga_notes-1.0.dist-info"
    metadata.mkdir(parents=True)
    shutil.copy(EXAMPLE / "qga_notes.py", folder)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: qga-notes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(declared_entry_points())
    return folder


def declared_entry_points() -> str:
    """The entry points in the example's pyproject.toml, in the format of entry_points.txt."""
    text = (EXAMPLE / "pyproject.toml").read_text()
    section = re.search(r'^\[project\.entry-points\."(.+)"\]\n((?:\w.*\n)+)', text, re.M)
    assert section is not None
    return f"[{section[1]}]\n" + section[2].replace('"', "")


class Running:
    """A running agent, and its log so far."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder / 'socket'}"
        self._errors = folder / "stderr"

    @property
    def log(self) -> str:
        return self._errors.read_text()

    def client(self) -> GuestAgent:
        return GuestAgent(self.address, PATIENCE)

    def call(self, command: str, **arguments: Any) -> Any:
        with self.client() as agent:
            return agent.call(command, **arguments)

    def commands(self) -> list[str]:
        return [entry["name"] for entry in self.call("guest-info")["supported_commands"]]


@contextmanager
def running(
    folder: Path, plugin_dir: Path | None = None, site: Path | None = None
) -> Iterator[Running]:
    """An agent with a configuration file in `folder`, terminated by a signal at the end."""
    config = folder / "qemu-ga.conf"
    config.write_text(
        f"[general]\nmethod=unix-listen\npath={folder / 'socket'}\nstatedir={folder}\n"
        + (f"plugin-dir={plugin_dir}\n" if plugin_dir else "")
    )
    agent = Running(folder)
    environment = {**os.environ, "PYTHONPATH": str(site or "")}
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "qga", "-c", str(config)], stderr=errors, env=environment
        )
    try:
        wait_until_it_listens(agent.address, process, folder / "stderr")
        yield agent
        assert process.poll() is None, f"the agent ended by itself: {agent.log}"
    finally:
        process.terminate()
        status = process.wait(PATIENCE)
    assert status == 0, agent.log


@pytest.fixture
def plugin_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def ends_in_an_error(agent: GuestAgent) -> None:
    """Call a command that does not return in time."""
    with pytest.raises((AgentError, OSError)):
        agent.call("qga-local", timeout=3)


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


class TestInstalled:
    def test_its_commands_are_served(self, tmp_path: Path, site: Path) -> None:
        with running(tmp_path, site=site) as agent:
            assert agent.log == ""
            assert agent.commands()[-3:] == ["qga-note-add", "qga-note-board", "qga-note-wait"]
            note = agent.call("qga-note-add", text="Backup at noon", priority="high", author="me")
            assert note == {
                "number": 1,
                "text": "Backup at noon",
                "priority": "high",
                "author": "me",
            }
            assert agent.call("qga-note-add", text="b")["priority"] == "normal"

    def test_requests_that_do_not_fit_are_refused(self, tmp_path: Path, site: Path) -> None:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({}, "Parameter 'text' is missing"),
            ({"text": 1}, "Invalid parameter type for 'text', expected: string"),
            (
                {"text": "x", "priority": "huge"},
                "Parameter 'priority' does not accept value 'huge'",
            ),
            ({"text": "x", "colour": "red"}, "Parameter 'colour' is unexpected"),
            ({"text": ""}, "a note without a text says nothing; give it one"),
        ]
        with running(tmp_path, site=site) as agent:
            for arguments, text in wrong:
                with pytest.raises(AgentError, match=text):
                    agent.call("qga-note-add", **arguments)
            assert agent.call("qga-note-board")["notes"] == []

    def test_state_outlives_a_connection_and_a_restart(self, tmp_path: Path, site: Path) -> None:
        with running(tmp_path, site=site) as agent:
            agent.call("qga-note-add", text="first")
            agent.call("qga-note-add", text="second")
        with running(tmp_path, site=site) as agent:
            notes = agent.call("qga-note-board")["notes"]
            assert [note["text"] for note in notes] == ["first", "second"]

    def test_it_hears_of_connections(self, tmp_path: Path, site: Path) -> None:
        with running(tmp_path, site=site) as agent, agent.client() as first:
            assert first.call("qga-note-board")["connections"] == 1
            with agent.client():
                assert first.call("qga-note-board")["connections"] == 2

    def test_a_command_that_waits_blocks_nobody(self, tmp_path: Path, site: Path) -> None:
        with running(tmp_path, site=site) as agent, agent.client() as other:
            came: list[Any] = []
            waiter = threading.Thread(
                target=lambda: came.append(agent.call("qga-note-wait", number=1))
            )
            waiter.start()
            deadline = time.monotonic() + PATIENCE
            while not other.call("qga-note-board")["waiting"]:
                assert time.monotonic() < deadline
            added = other.call("qga-note-add", text="here I am")
            waiter.join(PATIENCE)
            assert came == [added]

    def test_a_command_that_waits_in_vain(self, tmp_path: Path, site: Path) -> None:
        with running(tmp_path, site=site) as agent:
            with pytest.raises(AgentError, match="there is no note 1 yet"):
                agent.call("qga-note-wait", number=1, seconds=0.01)
            assert agent.call("qga-note-board")["waiting"] == 0

    def test_without_it_there_are_no_such_commands(self, tmp_path: Path) -> None:
        with running(tmp_path) as agent:
            assert not any(name.startswith("qga-note") for name in agent.commands())


class TestFolder:
    def test_a_file_of_root_is_served(self, tmp_path: Path, plugin_dir: Path) -> None:
        write(plugin_dir / "local.py", PLUGIN)
        with running(tmp_path, plugin_dir) as agent:
            assert agent.call("qga-local") == "local"
            assert agent.log == ""

    def test_the_example_is_a_plugin_of_one_file_too(
        self, tmp_path: Path, plugin_dir: Path
    ) -> None:
        write(plugin_dir / "notes.py", (EXAMPLE / "qga_notes.py").read_text())
        with running(tmp_path, plugin_dir) as agent:
            assert agent.call("qga-note-add", text="x")["number"] == 1
            assert agent.call("qga-note-wait", number=1)["text"] == "x"

    def test_a_file_that_others_may_write_is_refused(
        self, tmp_path: Path, plugin_dir: Path
    ) -> None:
        path = write(plugin_dir / "local.py", PLUGIN, 0o666)
        with running(tmp_path, plugin_dir) as agent:
            assert "qga-local" not in agent.commands()
            assert (
                f"plugin {path} skipped: {path} is writable by others (mode 0666); chmod go-w it"
            ) in agent.log

    def test_a_folder_that_others_may_write_is_refused(
        self, tmp_path: Path, plugin_dir: Path
    ) -> None:
        write(plugin_dir / "local.py", PLUGIN)
        plugin_dir.chmod(0o777)
        with running(tmp_path, plugin_dir) as agent:
            assert "qga-local" not in agent.commands()
            assert (
                f"plugin directory {plugin_dir} skipped: {plugin_dir} is writable by others "
                "(mode 0777); chmod go-w it"
            ) in agent.log

    def test_a_missing_directory_is_reported(self, tmp_path: Path) -> None:
        with running(tmp_path, tmp_path / "none") as agent:
            assert "guest-ping" in agent.commands()
            assert f"plugin directory {tmp_path}/none skipped: " in agent.log


class TestLeftOut:
    def test_one_that_raises_when_it_is_imported(self, tmp_path: Path, plugin_dir: Path) -> None:
        path = write(plugin_dir / "bad.py", "raise RuntimeError('no such\\nhardware')\n")
        write(plugin_dir / "local.py", PLUGIN)
        with running(tmp_path, plugin_dir) as agent:
            assert agent.call("qga-local") == "local"
            assert f"error: plugin {path} skipped: RuntimeError: no such\\nhardware" in agent.log
            assert len(agent.log.splitlines()) == 1

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            ("def qga_bad(self, name): ...", "argument 'name' has no type annotation"),
            ("def qga_bad(self, name: set) -> None: ...", "has no QAPI type"),
        ],
    )
    def test_a_plugin_with_an_invalid_signature_is_skipped(
        self, tmp_path: Path, plugin_dir: Path, fault: str, told: str
    ) -> None:
        head = "from qga import CommandGroup, command\nclass Bad(CommandGroup):\n"
        path = write(plugin_dir / "bad.py", f"{head}    @command()\n    {fault}\n")
        with running(tmp_path, plugin_dir) as agent:
            assert "qga-bad" not in agent.commands()
            assert f"qga_plugin_bad.Bad skipped: qga-bad ({path}:3): " in agent.log
            assert told in agent.log

    def test_one_with_an_access_of_its_own_invention(
        self, tmp_path: Path, plugin_dir: Path
    ) -> None:
        write(plugin_dir / "bad.py", "from qga import command\ncommand(access='read')\n")
        with running(tmp_path, plugin_dir) as agent:
            assert "invalid access 'read'; use one of audit, filesystem," in agent.log

    def test_one_whose_group_cannot_be_made(self, tmp_path: Path, plugin_dir: Path) -> None:
        text = PLUGIN.replace("class Local", "class Bad").replace("qga_local", "qga_bad")
        write(plugin_dir / "bad.py", text + "    def __init__(self, agent): 1 / 0\n")
        write(plugin_dir / "local.py", PLUGIN)
        with running(tmp_path, plugin_dir) as agent:
            assert agent.call("qga-local") == "local"
            assert "qga-bad" not in agent.commands()
            assert "error in qga_plugin_bad.Bad:" in agent.log
            assert "ZeroDivisionError: division by zero" in agent.log

    def test_one_with_a_command_that_there_is_already(
        self, tmp_path: Path, plugin_dir: Path
    ) -> None:
        path = write(plugin_dir / "ping.py", PLUGIN.replace("qga_local", "guest_ping"))
        with running(tmp_path, plugin_dir) as agent:
            assert agent.call("guest-ping") in ({}, None)
            (line,) = agent.log.splitlines()
            assert "command guest-ping is defined twice: in " in line
            assert "/commands/liveness.py:" in line
            assert f" and in {path}:5" in line

    def test_two_of_them_with_one_name(self, tmp_path: Path, plugin_dir: Path) -> None:
        first = write(plugin_dir / "a.py", PLUGIN)
        second = write(plugin_dir / "b.py", PLUGIN.replace('"local"', '"other"'))
        with running(tmp_path, plugin_dir) as agent:
            assert agent.call("qga-local") == "local"
            assert (
                f"command qga-local is defined twice: in {first}:5 and in {second}:5" in agent.log
            )

    @pytest.mark.parametrize(
        "body", ["sleep(8)", "while True: pass", "open('{fifo}').read()"], ids=lambda body: body[:5]
    )
    def test_one_that_waits_holds_up_nobody_else(
        self, tmp_path: Path, plugin_dir: Path, body: str
    ) -> None:
        """Although it is not declared as blocking."""
        os.mkfifo(tmp_path / "fifo")
        wait = body.replace("{fifo}", str(tmp_path / "fifo"))
        text = "from time import sleep\n" + PLUGIN.replace('return "local"', wait)
        write(plugin_dir / "local.py", text)
        with running(tmp_path, plugin_dir) as agent, agent.client() as slow:
            request = threading.Thread(target=lambda: ends_in_an_error(slow))
            request.start()
            since = time.monotonic()
            for _ in range(10):
                agent.call("guest-ping")
            assert time.monotonic() - since < 4
        request.join()

    @pytest.mark.parametrize("where", ["command", "life-cycle"])
    def test_one_that_waits_on_the_loop_is_logged_by_name(
        self, tmp_path: Path, plugin_dir: Path, where: str
    ) -> None:
        text = "from time import sleep\n" + PLUGIN.replace('"audit"', '"audit", blocking=False')
        if where == "command":
            path = write(plugin_dir / "local.py", text.replace("return", "sleep(0.4); return"))
            name = f"qga-local ({path}:6)"
        else:
            text += "\n    def on_connect(self, caller):\n        sleep(0.4)\n"
            write(plugin_dir / "local.py", text)
            name = "Local"
        with running(tmp_path, plugin_dir) as agent:
            assert agent.call("qga-local") == "local"
            assert (
                f"warning: {name} blocked the main loop for 0.4 s, and no client was served"
                in agent.log
            )

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("return self.qga_local()", "RecursionError"),
            ("return object()", "object"),
            ("x = []; x.append(x); return x", "qga-local failed"),
            ("return (n for n in range(3))", "generator"),
            ("raise SystemExit(3)", "SystemExit"),
        ],
    )
    @pytest.mark.parametrize("blocking", ["", ", blocking=False"])
    def test_one_that_answers_nonsense_gets_an_error_across(
        self, tmp_path: Path, plugin_dir: Path, body: str, reason: str, blocking: str
    ) -> None:
        text = PLUGIN.replace('return "local"', body).replace('"audit"', f'"audit"{blocking}')
        write(plugin_dir / "local.py", text)
        with running(tmp_path, plugin_dir) as agent:
            with pytest.raises(AgentError, match=reason):
                agent.call("qga-local")
            agent.call("guest-ping")

    @pytest.mark.parametrize("method", ["on_connect(self, caller)", "on_unheard(self, command)"])
    @pytest.mark.parametrize("body", ["raise SystemExit", "return {}['x']"])
    def test_a_life_cycle_method_that_fails_harms_nobody(
        self, tmp_path: Path, plugin_dir: Path, method: str, body: str
    ) -> None:
        write(plugin_dir / "local.py", f"{PLUGIN}\n    def {method}:\n        {body}\n")
        config = write(tmp_path / "conf", f"[general]\nplugin-dir={plugin_dir}\n")
        with listening(tmp_path, "-c", str(config)) as agent, agent.connect() as client:
            assert client.call("qga-local") == "local"
            assert client.call("guest-sync", id=1) == 1  # which says that the reply was not heard
            assert client.call("guest-ping") == {}
            assert "error in Local:" in agent.log

    def test_a_fault_of_a_command_is_an_error_reply(self, tmp_path: Path, plugin_dir: Path) -> None:
        write(plugin_dir / "local.py", PLUGIN.replace('return "local"', "return {}['x']"))
        with running(tmp_path, plugin_dir) as agent:
            with pytest.raises(AgentError, match="qga-local failed: KeyError: 'x'"):
                agent.call("qga-local")
            assert "error in qga-local:" in agent.log
            assert "guest-ping" in agent.commands()
