"""`qemu-ga --doctor` with a running agent, without one, and with broken setups."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.service.state import State
from tests.differential.agents import original
from tests.integration.agent_process import AgentProcess, listening, started, wait_for

Found = list[dict[str, str]]


class Doctor:
    """Runs it for the agent whose socket and state are in a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "qemu-ga.conf"
        self.config.write_text("")
        self.config.chmod(0o644)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "qga", "--doctor", "-c", str(self.config), *options]
        argv += ["-t", str(self.folder)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def findings(self, *options: str, path: Path | None = None) -> Found:
        place = ["-m", "unix-listen", "-p", str(path or self.folder / "socket")]
        done = self.run("--json", *place, *options)
        assert done.stderr == ""
        report: dict[str, Any] = json.loads(done.stdout)
        statuses = {finding["status"] for finding in report["findings"]}
        assert report["well"] == (statuses == {"ok"})
        assert done.returncode == (0 if report["well"] else 1)
        found: Found = report["findings"]
        return found


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with listening(tmp_path) as agent:
        yield agent


def of(findings: Found, check: str) -> Found:
    return [finding for finding in findings if finding["check"] == check]


@pytest.fixture
def without_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process see a guest with cgroup v1."""
    monkeypatch.setattr("qga.programs.cgroup.ROOT", "/nonexistent")


def programs_of(**keys: Any) -> Found:
    from qga.doctor.programs import diagnose_programs
    from qga.settings.config import ChannelConfig

    channel = ChannelConfig()._replace(**keys)
    return [finding._asdict() for finding in diagnose_programs(channel)]


def test_programs_without_bounds_need_nothing(without_cgroups: None) -> None:
    assert programs_of() == []


def test_bounds_that_this_guest_cannot_keep_to(without_cgroups: None) -> None:
    [finding] = programs_of(exec_memory=1 << 20)
    assert finding["status"] == "warning"
    assert "limits apply to each process" in finding["text"]
    [finding] = programs_of(exec_cpu=0.5, exec_timeout=60)
    assert finding["status"] == "failed"
    assert "so no program can be started" in finding["text"]


def test_a_user_of_programs_who_is_not_there(doctor: Doctor, agent: AgentProcess) -> None:
    doctor.config.write_text("[exec]\nuser=nobody-at-all\n")
    [finding] = of(doctor.findings(), "programs")
    assert finding["status"] == "failed"
    assert "the user 'nobody-at-all' is unknown, so no program can be started" in finding["text"]


def test_an_agent_that_serves(doctor: Doctor, agent: AgentProcess) -> None:
    findings = doctor.findings()
    [channel] = of(findings, "channel")
    assert channel["status"] == "ok"
    assert channel["text"] == f"{agent.path} is served by pid {agent.pid}"
    [process] = of(findings, "agent")
    assert process["text"].startswith(f"running as pid {agent.pid}: ")
    assert of(findings, "configuration")[0]["status"] == "ok"
    assert {finding["check"] for finding in findings} >= {"unit", "state", "hooks", "selinux"}
    assert all("advice" in finding for finding in findings if finding["status"] != "ok")


def test_no_agent(doctor: Doctor) -> None:
    findings = doctor.findings()
    assert of(findings, "agent")[0]["text"] == "no agent is running"
    [channel] = of(findings, "channel")
    assert channel["status"] == "failed"
    assert channel["text"] == f"no process has {doctor.folder}/socket open"


def test_for_people(doctor: Doctor) -> None:
    done = doctor.run("-m", "unix-listen", "-p", f"{doctor.folder}/a\x1b[2Jb")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert f"ok       configuration: {doctor.config}" in lines
    at = lines.index("failed   agent: no agent is running")
    assert lines[at + 1].startswith("         try: ")
    assert re.fullmatch(r"\d failed, \d warnings?\.", lines[-1])
    assert "\\x1b[2Jb open\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_line_that_switches_a_command_off(doctor: Doctor, agent: AgentProcess) -> None:
    doctor.config.write_text("[general]\nverbose=true\nblock-rpcs=guest-get-users,guest-nonsense\n")
    commands = of(doctor.findings(), "commands")
    assert commands[0]["status"] == "ok"
    place = f"{doctor.config}, line 3: block-rpcs=guest-get-users"
    assert commands[0]["text"].endswith(f" is disabled by {place}: guest-get-users")
    assert commands[1]["status"] == "warning"
    assert commands[1]["text"].startswith("unknown command 'guest-nonsense' in a list")
    assert "has changed since" in of(doctor.findings(), "configuration")[1]["text"]


def test_commands_of_another_channel(doctor: Doctor) -> None:
    doctor.config.write_text(
        "[channel watch]\nmethod=unix-listen\npath=/nonexistent/watch\nprofile=audit\n"
    )
    findings = doctor.findings()
    on_main, on_watch, *_ = of(findings, "commands")
    assert on_main["text"].startswith("all ")
    place = f"on the channel 'watch' by {doctor.config}, line 4: profile=audit: "
    assert place in on_watch["text"]
    assert "guest-exec, " in on_watch["text"]
    assert "guest-ping" not in on_watch["text"]
    assert [finding["status"] for finding in of(findings, "channel")] == ["failed"] * 2


def test_a_broken_configuration(doctor: Doctor) -> None:
    doctor.config.write_text("[general]\nstatedir=/tmp\nprofile=emperor\n")
    findings = doctor.findings()
    [broken] = of(findings, "configuration")
    assert broken["status"] == "failed"
    assert f"{doctor.config}, line 3: profile: " in broken["text"]
    assert of(findings, "commands")


def test_a_configuration_that_anybody_may_write(doctor: Doctor) -> None:
    doctor.config.chmod(0o666)
    [broken] = of(doctor.findings(), "configuration")
    assert "writable by others" in broken["text"]


def test_odd_keys_and_a_missing_file(doctor: Doctor) -> None:
    doctor.config.write_text("[general]\ndaemonize=1\n")
    assert of(doctor.findings(), "configuration")[1]["status"] == "warning"
    doctor.config.unlink()
    [missing] = of(doctor.findings(), "configuration")
    assert (missing["status"], missing["text"]) == ("failed", f"{doctor.config} does not exist")


def test_a_serial_line_and_who_holds_it(doctor: Doctor) -> None:
    ours, theirs = pty.openpty()
    line = os.ttyname(theirs)
    os.close(theirs)
    os.chmod(line, 0o600)
    try:
        [idle] = of(doctor.findings("-m", "isa-serial", path=Path(line)), "channel")
        assert idle["text"] == f"no process has {line} open"
        with started(doctor.folder, method="isa-serial", path=line) as agent:
            wait_for(lambda: agent.descriptors(line), "the agent has the line open")
            [held] = of(doctor.findings("-m", "isa-serial", path=Path(line)), "channel")
            assert (held["status"], held["text"]) == ("ok", f"{line} is served by pid {agent.pid}")
        with subprocess.Popen(["sh", "-c", 'exec sleep 1000 <"$0"', line]) as other:
            wait_for(lambda: "sleep" in Path(f"/proc/{other.pid}/comm").read_text(), "it sleeps")
            findings = doctor.findings("-m", "isa-serial", path=Path(line))
            other.kill()
        [held] = of(findings, "channel")
        assert held["status"] == "failed"
        assert held["text"] == f"{line} is in use by pid {other.pid}: sleep 1000"
        assert held["advice"] == f"stop that process: kill {other.pid}"
        os.chmod(line, 0o666)
        [open_to_all, _] = of(doctor.findings("-m", "isa-serial", path=Path(line)), "channel")
        assert open_to_all["status"] == "warning"
        assert "mode 0666" in open_to_all["text"]
    finally:
        os.close(ours)


def test_a_port_that_is_not_there(doctor: Doctor) -> None:
    path = Path("/dev/virtio-ports/com.example.gone")
    [missing] = of(doctor.findings("-m", "virtio-serial", path=path), "channel")
    assert missing["status"] == "failed"
    assert missing["text"] == f"{path}: No such file or directory"
    assert "name='com.example.gone'" in missing["advice"]


def test_hooks(doctor: Doctor) -> None:
    hook = doctor.folder / "hook"
    option = f"--fsfreeze-hook={hook}"

    def told() -> dict[str, str]:
        [finding] = of(doctor.findings(option), "hooks")
        return finding

    assert told()["text"] == f"{hook} is missing: every freeze fails"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o644)
    assert told()["advice"] == f"chmod +x {hook}"
    hook.chmod(0o777)
    assert "writable by others" in told()["text"]
    hook.chmod(0o755)
    assert told() == {
        "check": "hooks",
        "status": "ok",
        "text": f"{hook} is run around each freeze",
    }


def test_each_hook_that_is_passed_over_is_named(doctor: Doctor) -> None:
    hook = doctor.folder / "hook"
    folder = doctor.folder / "hook.d"
    folder.mkdir()
    for path, mode in ((hook, 0o755), (folder / "a", 0o644), (folder / "b~", 0o755)):
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
    (folder / "c").mkdir()
    (folder / "d").symlink_to("nowhere")
    (folder / "e").symlink_to(hook)
    os.mkfifo(folder / "f")
    found = {
        finding["text"].split()[0]: (finding["status"], finding["text"].partition(": ")[2])
        for finding in of(doctor.findings(f"--fsfreeze-hook={hook}"), "hooks")
    }
    assert found == {
        str(hook): ("ok", ""),
        f"{folder}/e": ("ok", ""),
        f"{folder}/a": ("warning", "it is not executable"),
        f"{folder}/b~": ("ok", "its name is that of a backup or package leftover"),
        f"{folder}/c": ("warning", "it is a directory"),
        f"{folder}/d": ("warning", "it is a dangling link"),
        f"{folder}/f": ("warning", "it is not a regular file"),
    }


def test_a_hook_that_ignores_failures(doctor: Doctor) -> None:
    """The one of Debian's package qemu-guest-agent; one that was changed may be better."""
    [agent] = original("7.2")
    text = (Path(agent).parent / "root/etc/qemu/fsfreeze-hook").read_text()
    hook = doctor.folder / "hook"
    for text_now, expected in ((text, ["ok", "warning"]), (f"{text}\nexit 1\n", ["ok"])):
        hook.write_text(text_now)
        hook.chmod(0o755)
        found = of(doctor.findings(f"--fsfreeze-hook={hook}"), "hooks")
        assert [finding["status"] for finding in found] == expected
        assert found[-1].get("advice", "").startswith(f"remove {hook}: ") is (len(found) > 1)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("#!/bin/sh\r\n", "has Windows line endings (\\r\\n)"),
        ("#!/usr/bin/env sh\r\nexit 0\r\n", "has Windows line endings (\\r\\n)"),
        ("#!/bin/nosuch -e\n", "has an interpreter that cannot be run (/bin/nosuch)"),
        ("#!\n", "has an interpreter that cannot be run ()"),
    ],
)
def test_a_hook_that_cannot_start(doctor: Doctor, text: str, fault: str) -> None:
    hook = doctor.folder / "hook"
    hook.write_text(text)
    hook.chmod(0o755)
    [finding] = of(doctor.findings(f"--fsfreeze-hook={hook}"), "hooks")
    assert finding["status"] == "failed"
    assert finding["text"] == f"{hook} {fault}: every freeze fails"


@pytest.mark.parametrize("text", ["exit 0\n", ""])
def test_a_hook_that_names_no_interpreter_is_run_by_the_shell(doctor: Doctor, text: str) -> None:
    hook = doctor.folder / "hook"
    hook.write_text(text)
    hook.chmod(0o755)
    [finding] = of(doctor.findings(f"--fsfreeze-hook={hook}"), "hooks")
    assert finding["status"] == "ok"


@pytest.mark.parametrize("kind", ["directory", "another's"])
def test_a_hook_that_is_refused(doctor: Doctor, kind: str) -> None:
    hook = doctor.folder / "hook"
    if kind == "directory":
        hook.mkdir()
    else:
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
        os.chown(hook, 65534, -1)
    [finding] = of(doctor.findings(f"--fsfreeze-hook={hook}"), "hooks")
    assert finding["status"] == "failed"


@pytest.mark.parametrize("key", ["logfile", "pidfile"])
def test_a_file_that_keeps_the_agent_from_starting(doctor: Doctor, key: str) -> None:
    doctor.config.write_text(f"[general]\n{key}={doctor.folder}/none/file\n")
    [missing] = of(doctor.findings(), "files")
    assert missing["status"] == "failed"
    assert f"{doctor.folder}/none does not exist" in missing["text"]
    doctor.config.write_text(f"[general]\n{key}={doctor.folder}\n")
    [directory] = of(doctor.findings(), "files")
    assert directory["text"].endswith("it is a directory")
    doctor.config.write_text(f"[general]\n{key}={doctor.folder}/new\n")
    assert of(doctor.findings(), "files") == []
    assert not (doctor.folder / "new").exists()


def test_frozen_filesystems(doctor: Doctor) -> None:
    State(str(doctor.folder)).mark_frozen()
    [frozen] = of(doctor.findings(), "state")
    assert frozen["status"] == "warning"
    assert frozen["text"].startswith("the filesystems are frozen")


def test_a_plugin_that_is_left_out(doctor: Doctor) -> None:
    folder = doctor.folder / "plugins"
    folder.mkdir(0o755)
    (folder / "broken.py").write_text("import nonsense\n")
    doctor.config.write_text(f"[general]\nplugin-dir={folder}\n")
    [left_out] = of(doctor.findings(), "plugins")
    assert left_out["status"] == "warning"
    assert "nonsense" in left_out["text"]


HEAD = "import time\nfrom typing import Any\nfrom qga import CommandGroup, command\n"
GROUP = f"{HEAD}class Tape(CommandGroup):\n"
LEFT_OUT = {
    "syntax": ("def (", "SyntaxError"),
    "missing-module": ("import nonsense\n", "No module named 'nonsense'"),
    "raises": ("1 / 0\n", "ZeroDivisionError"),
    "exits": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "constructor": (
        f"{GROUP}    def __init__(self, agent):\n        raise ValueError('no tape')\n",
        "ValueError: no tape",
    ),
    "signature": (
        f"{GROUP}    @command()\n    def qga_tape(self, number): ...\n",
        "argument 'number' has no type annotation",
    ),
    "type": (
        f"{GROUP}    @command()\n    def qga_tape(self, number: set) -> None: ...\n",
        "has no QAPI type",
    ),
    "duplicate": (
        f"{GROUP}    @command()\n    def guest_ping(self) -> None: ...\n",
        "command guest-ping is defined twice",
    ),
    "secret": (
        f"{GROUP}    @command(secret=('x',))\n    def qga_tape(self) -> None: ...\n",
        "secret='x' is not an argument",
    ),
    "no-group": ("class Tape: ...\n", "defines no subclass of CommandGroup"),
}


@pytest.mark.parametrize(("source", "reason"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_whatever_an_agent_leaves_out_is_named(doctor: Doctor, source: str, reason: str) -> None:
    folder = doctor.folder / "plugins"
    folder.mkdir(0o755)
    (folder / "tape.py").write_text(source)
    doctor.config.write_text(f"[general]\nplugin-dir={folder}\n")
    before = sorted(doctor.folder.iterdir())
    [left_out] = of(doctor.findings(), "plugins")
    assert left_out["status"] == "warning"
    assert "tape" in left_out["text"]
    assert reason in left_out["text"]
    assert sorted(doctor.folder.iterdir()) == before, "it only looks"


PLUGIN = """
from qga import CommandGroup
from qga.findings import failed


class Tape(CommandGroup):
    @classmethod
    def diagnose(cls, config):
        yield failed("tape", "there is none", "insert one")
        raise RuntimeError("nor a drive")
"""


def test_a_plugin_has_its_say_and_its_faults_are_its_own(doctor: Doctor) -> None:
    folder = doctor.folder / "plugins"
    folder.mkdir(0o755)
    (folder / "tape.py").write_text(PLUGIN)
    doctor.config.write_text(f"[general]\nplugin-dir={folder}\n")
    findings = doctor.findings()
    told, fault = of(findings, "tape")
    assert told["advice"] == "insert one"
    assert fault["text"] == "the check failed: RuntimeError: nor a drive"
    assert of(findings, "selinux")
