"""A user against the agent that changes the keys of that user (CVE-2026-12080 of QEMU's agent).

The account exists only in a passwd file that the agent alone sees.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.integration.agent_process import AgentProcess, Refused, listening

UID = 54321

RACE = """
import os, random, sys, time
home, others, uid = sys.argv[1:]
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
os.chdir(home)
os.mkdir(".ssh", 0o700)
print("ready", flush=True)
while True:
    for path, target in ((".ssh", others), (".ssh/authorized_keys", others + "/authorized_keys"),
                         (".ssh/authorized_keys", others + "/new")):
        try:
            os.rename(path, "kept")
        except OSError:
            pass
        try:
            os.symlink(target, path)
            if random.random() < 0.1:  # otherwise a busy agent rarely meets a link
                time.sleep(0.001)
            os.unlink(path)
        except OSError:
            pass
        try:
            os.rename("kept", path)
        except OSError:
            pass
"""
"""The user's script, which makes the directory and the file real ones and links in turn."""


@pytest.fixture
def home() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        home = Path(name) / "home"
        home.mkdir()
        os.chown(home, UID, UID)
        yield home


@pytest.fixture
def others(home: Path) -> Path:
    """A directory of root's with keys, as /root/.ssh."""
    others = home.parent / "others"
    others.mkdir(mode=0o700)
    (others / "authorized_keys").write_text("secret of root\n")
    return others


@contextmanager
def agent_with_account(directory: Path, home: Path) -> Iterator[AgentProcess]:
    passwd = directory / "passwd"
    passwd.write_text(f"root:x:0:0::/root:/bin/sh\nqga-person:x:{UID}:{UID}::{home}:/bin/sh\n")
    script = f'mount --bind {passwd} /etc/passwd; exec "$@"'
    launcher = ["unshare", "--mount", "sh", "-ec", script, "sh"]
    with listening(directory, launcher=launcher) as agent:
        yield agent


@contextmanager
def race(home: Path, others: Path) -> Iterator[None]:
    argv = [sys.executable, "-c", RACE, str(home), str(others), str(UID)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            yield
        finally:
            running.kill()


def state(directory: Path) -> list[tuple[object, ...]]:
    paths = [directory, *sorted(directory.iterdir())]
    facts = [(path, path.stat()) for path in paths]
    return [
        (path, seen.st_ino, seen.st_uid, seen.st_gid, seen.st_mode, seen.st_mtime_ns)
        for path, seen in facts
    ]


def rounds(outcomes: Counter[str]) -> Iterator[int]:
    """40, and more until a link was there at the wrong moment; on a busy machine few are."""
    for number in range(400):
        if number >= 40 and outcomes["Permission denied"]:
            return
        yield number


def test_links_that_come_and_go_lead_to_nobody_else_s_files(
    tmp_path: Path, home: Path, others: Path
) -> None:
    before = state(others)
    outcomes: Counter[str] = Counter()
    with (
        agent_with_account(tmp_path, home) as agent,
        agent.connect() as client,
        race(home, others),
    ):
        for number in rounds(outcomes):
            for command, arguments in (
                ("add", {"keys": [f"ssh-rsa {number}"]}),
                ("add", {"keys": [f"ssh-rsa {number}"], "reset": True}),
                ("remove", {"keys": ["secret of root"]}),
                ("get", {}),
            ):
                name = f"guest-ssh-{command}-authorized-keys"
                try:
                    reply = client.call(name, username="qga-person", **arguments)
                except Refused as error:
                    outcomes[str(error).rpartition(": ")[2]] += 1
                else:
                    outcomes["done"] += 1
                    assert "secret" not in str(reply)
    assert state(others) == before
    assert (others / "authorized_keys").read_text() == "secret of root\n"
    assert outcomes["done"]
    assert outcomes["Permission denied"], outcomes


def test_what_the_agent_makes_is_the_user_s(tmp_path: Path, home: Path) -> None:
    with agent_with_account(tmp_path, home) as agent, agent.connect() as client:
        client.call("guest-ssh-add-authorized-keys", username="qga-person", keys=["ssh-rsa A"])
    keys = home / ".ssh" / "authorized_keys"
    assert keys.read_text() == "ssh-rsa A\n"
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in (keys, keys.parent)} == {
        (UID, 0o600),
        (UID, 0o700),
    }
