"""qemu-ga --explain-policy gives the same answers as the agent, and the lines that decide."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.agent_process import COMMAND, Refused, listening

MISSING = "No such file or directory: symbolic link to a missing file"

CONFIG = """\
[general]
block-rpcs=guest-set-time,guest-suspend-ram

[files]
read=/etc/hostname;/etc/pass*
read=/var/log/

[exec]
allow=/usr/bin/true

[accounts]
allow=web-*

[channel narrow]
method=unix-listen
path=/run/narrow
profile=file-read
[channel listed]
method=unix-listen
path=/run/listed
allow-rpcs=guest-ping
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    conf = tmp_path / "conf"
    conf.write_text(CONFIG)
    conf.chmod(0o644)
    return conf


def explain(conf: Path, *words: str) -> tuple[int, str]:
    result = subprocess.run(
        [*COMMAND, "-c", str(conf), "--explain-policy", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("guest-file-open path=/etc/passwd", "line 5: read=/etc/pass*"),
        ('guest-file-open {"path":"/var/../etc/passwd"}', "line 5: read=/etc/pass*"),
        ("guest-exec path=true", "line 9: allow=/usr/bin/true"),
        ("guest-set-user-password username=web-1 password=x crypted=true", "line 12: allow=web-*"),
        ("guest-ping --on-channel=narrow", "line 17: profile=file-read"),
        ("guest-ping --on-channel listed", "line 21: allow-rpcs=guest-ping"),
        ("guest-ping", "by default: profile=unrestricted"),
        ("guest-file-open", "Its arguments matter, too"),
    ],
)
def test_allowed(conf: Path, words: str, line: str) -> None:
    status, text = explain(conf, *words.split())
    assert (status, text[:7]) == (0, "allowed")
    assert line in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("guest-file-open path=/etc/shadow", "line 5, 6: read=/etc/hostname;/etc/pass*;/var/log/"),
        ("guest-file-open path=/etc/passwd mode=w", "by default: write="),
        ("guest-exec path=sh", "line 9: allow=/usr/bin/true"),
        ("qga-exec path=sh", "line 9: allow=/usr/bin/true"),
        ("qga-exec path=true directory=/", "runs in the agent's own directory"),
        ("qga-exec path=true tty=true", "gets no terminal"),
        ("qga-file-send path=/etc/shadow port=x", "line 5, 6: read=/etc/hostname;/etc/pass*"),
        ("qga-file-receive path=/etc/passwd port=x count=1", "by default: write="),
        ("qga-file-checksum path=/etc/passwd -b guest-file-read", "block-rpcs=guest-file-read"),
        ("guest-ssh-add-authorized-keys username=root keys=[]", "line 12: allow=web-*"),
        ("guest-set-time", "line 2: block-rpcs=guest-set-time"),
        ("guest-suspend-ram --on-channel narrow", "line 2: block-rpcs=guest-suspend-ram"),
        ("guest-exec path=true --on-channel narrow", "line 17: profile=file-read"),
        ("guest-info --on-channel listed", "line 21: allow-rpcs=guest-ping"),
        ("guest-shutdown -b guest-shutdown", "the command line: block-rpcs=guest-shutdown"),
    ],
)
def test_refused(conf: Path, words: str, line: str) -> None:
    status, text = explain(conf, *words.split())
    assert (status, text[:7]) == (1, "refused")
    assert line in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("guest-nope", "unknown command 'guest-nope'; --block-rpcs=help lists all commands"),
        ("guest-exec path=x arg=3", "Invalid parameter type for 'arg', expected: array"),
        ("guest-exec x=3", "Parameter 'path' is missing"),
        ("guest-exec nonsense", "'nonsense' is neither KEY=VALUE nor a JSON object"),
        ("guest-exec {", "'{' is not a JSON object"),
        ("guest-ping --on-channel x", "unknown channel 'x'; use one of main, narrow, listed"),
    ],
)
def test_invalid_questions(conf: Path, words: str, reason: str) -> None:
    status, text = explain(conf, *words.split())
    assert status == 1
    assert reason in text


def test_the_user_and_the_limits_of_a_program(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_text("[exec]\nusers=nobody\ntimeout=60\nmemory=1M\n")
    conf.chmod(0o644)
    status, text = explain(conf, "qga-exec", "path=true", "user=nobody", 'limits={"cpu": 0.5}')
    assert (status, text.splitlines()[-1]) == (
        0,
        "  It would run as nobody within timeout=60 memory=1048576 cpu=0.5.",
    )
    status, text = explain(conf, "qga-exec", "path=true", "user=root")
    assert status == 1
    assert "the user 'root' is not in [exec] users of" in text
    assert "line 2: users=nobody" in text
    status, text = explain(conf, "guest-exec", "path=true")
    assert "the agent's own user is not in [exec] users of" in text


def test_the_agent_decides_just_so_and_nothing_is_carried_out(tmp_path: Path) -> None:
    config = f"[files]\nread=/\nwrite={tmp_path}/allowed\n[exec]\nallow=/usr/bin/touch *\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        for name in ("allowed", "forbidden"):
            words = (f"path={tmp_path}/{name}", "mode=w")
            status, _ = explain(tmp_path / "qemu-ga.conf", "guest-file-open", *words)
            assert not (tmp_path / name).exists()
            try:
                client.call("guest-file-open", path=f"{tmp_path}/{name}", mode="w")
                opened = True
            except Refused:
                opened = False
            assert opened == (status == 0) == (name == "allowed")
        arguments = f'arg=["{tmp_path}/made"]'
        status, _ = explain(tmp_path / "qemu-ga.conf", "guest-exec", "path=touch", arguments)
        assert status == 0
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("target", ["allowed/none", "forbidden/none"])
def test_a_link_to_nowhere(tmp_path: Path, target: str) -> None:
    """The agent does not create what a link of another user names, even if links are followed."""
    config = f"[files]\nwrite={tmp_path}/allowed/\nfollow-symlinks=true\n"
    for folder in ("allowed", "forbidden"):
        (tmp_path / folder).mkdir()
    link = tmp_path / "allowed" / "link"
    link.symlink_to(tmp_path / target)
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        answer = client.refusal("guest-file-open", path=str(link), mode="w")
    words = ("guest-file-open", f"path={link}", "mode=w")
    status, text = explain(tmp_path / "qemu-ga.conf", *words)
    assert not (tmp_path / target).exists()
    if target.startswith("allowed"):
        assert (status, text) == (0, f"allowed, but would fail: {MISSING}\n")
        assert answer.endswith(f": {MISSING}")
    else:
        assert status == 1
        assert text.startswith(f"refused: '{link}' is not in [files] write")
        assert "has been refused" in answer


def test_of_a_forbidden_folder_a_link_to_nowhere_tells_nothing(tmp_path: Path) -> None:
    config = f"[files]\nwrite={tmp_path}/allowed/\nfollow-symlinks=true\n"
    for folder in ("allowed", "forbidden"):
        (tmp_path / folder).mkdir()
    (tmp_path / "forbidden" / "link").symlink_to(tmp_path / "allowed" / "missing")
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        answers = [
            client.refusal("guest-file-open", path=f"{tmp_path}/forbidden/{name}", mode="w")
            for name in ("link", "none")
        ]
    assert answers[0].replace("/link", "/none") == answers[1]


def test_a_configuration_that_others_may_write_is_refused(conf: Path) -> None:
    conf.chmod(0o646)
    status, text = explain(conf, "guest-ping")
    assert status == 1
    assert text == (
        f"qemu-ga: error: error loading configuration from path: {conf}, {conf} is writable by "
        "others (mode 0646); chmod go-w it\n"
    )


PLUGIN = """
import os
from qga import Caller, CommandGroup, command

def judge(policy, given):
    return policy.judge_file(given["path"], os.O_RDONLY)

class Group(CommandGroup):
    @command(access="file-read")
    def qga_silent(self, path: str, *, caller: Caller) -> None:
        pass

    @command(access="file-read", verdict=judge)
    def qga_open(self, path: str, *, caller: Caller) -> None:
        pass

    @command(access="audit")
    def qga_plain(self, path: str) -> None:
        pass
"""


@pytest.mark.parametrize(
    ("command", "allowed", "warned"),
    [("qga-silent", True, True), ("qga-open", False, False), ("qga-plain", True, False)],
)
def test_a_command_of_a_plugin_that_gives_no_verdict(
    tmp_path: Path, conf: Path, command: str, allowed: bool, warned: bool
) -> None:
    """It may refuse what the policy allows, which only a call would show."""
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "group.py").write_text(PLUGIN)
    conf.write_text(CONFIG.replace("[general]\n", f"[general]\nplugin-dir={plugins}\n"))
    status, text = explain(conf, command, "path=/etc/shadow")
    assert (status == 0) == allowed, text
    assert ("may apply rules of its own" in text) == warned
