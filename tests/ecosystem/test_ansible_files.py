"""How the connection plugin for Ansible reaches files and programs with the least of them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext

from ansible_collections.qga.guest.plugins.connection.qga import Connection
from ansible_collections.qga.guest.plugins.plugin_utils import as_root, as_user
from qga.client import CopyError, GuestAgent
from tests.guest.service import UNIT
from tests.guest.vm import Guest
from tests.host.day import Day
from tests.unit.client_peer import Start
from tests.unit.conftest import start

from .ansible_runs import IN_A_GUEST, PROGRAMS, Ansible, Task

__all__ = ["start"]

pytestmark = pytest.mark.timeout(900)

JOURNAL = ["journalctl", "--quiet", "--output=cat", f"--unit={UNIT}"]


@pytest.fixture
def agent(web: Day, guest: Guest) -> Iterator[GuestAgent]:
    with GuestAgent(f"unix:{guest.channel_path()}", 60) as agent:
        yield agent


def test_a_large_file_takes_no_programs(web: Day, site: Path, guest: Guest, tmp_path: Path) -> None:
    """There and back: each of them is one command, which moves it through a data port."""
    ansible = Ansible(PROGRAMS["distribution"], site, tmp_path, {"QGA_HOST_ROOT": str(web.root)})
    (tmp_path / "there").write_bytes(os.urandom(5_000_000))
    tasks: list[Task] = [
        {"copy": {"src": "there", "dest": "/root/there"}},
        {"fetch": {"src": "/root/there", "dest": "back", "flat": True}},
    ]
    guest.run(["journalctl", "--rotate", "--vacuum-time=1s"])
    ran = ansible.play(tasks, {"web": IN_A_GUEST})
    assert [each.status for each in ran] == ["ok", "ok"], ran
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
    journal = guest.run(JOURNAL).stdout
    place = r'"/root/\.ansible/tmp/ansible-tmp-[^/"]+/[^/"]+"'
    assert re.search(rf'qga-file-receive {{"path":{place},', journal), journal
    assert 'qga-file-send {"path":"/root/there",' in journal
    assert "qga.client" not in journal  # the name of a script of the library
    guest.run(["rm", "-r", "/root/there", "/root/.ansible"])


def test_a_link_is_not_written_through(agent: GuestAgent, guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"new")
    guest.run(["/bin/sh", "-ec", "echo old >/root/target; ln -sf /root/target /root/link"])
    assert not as_root.put(agent, str(tmp_path / "content"), "/root/link")
    assert guest.run(["cat", "/root/target"]).stdout == "old\n"
    guest.run(["rm", "/root/target", "/root/link"])


@pytest.mark.parametrize("path", ["/root/none", "/root", "/dev/zero", "/proc/self/status"])
def test_what_is_left_to_the_copies(agent: GuestAgent, tmp_path: Path, path: str) -> None:
    """What is no regular file with a size, for the right error or another way to read it."""
    assert not as_root.fetch(agent, path, str(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_another_agent_writes_nothing_in_place(start: Start, tmp_path: Path) -> None:
    """It would follow links."""
    missing = Exception("CommandNotFound", "The command qga-get-version has not been found")
    peer = start({"qga-get-version": lambda _: missing})
    (tmp_path / "content").touch()
    with GuestAgent(peer.address) as agent:
        assert not as_root.put(agent, str(tmp_path / "content"), "/tmp/place")
    assert [request["execute"] for request in peer.requests] == ["qga-get-version"]


def test_a_file_of_the_host_that_cannot_be_written(tmp_path: Path) -> None:
    connection = Connection(PlayContext(), None)
    with pytest.raises(AnsibleError, match=f"{tmp_path}/no/file: No such file or directory"):
        connection._reported(lambda: (tmp_path / "no/file").open("wb"))


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    """An error of writing does not name the file."""
    connection = Connection(PlayContext(), None)
    with pytest.raises(AnsibleError, match=r"^/dev/full: No space left on device"):
        connection._reported(lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"x"), "/dev/full")


def with_file(start: Start, content: bytes, size: int) -> GuestAgent:
    """An agent with a file that is said to have this size, without a data port."""
    handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "guest-file-open": lambda _: 1,
        "guest-file-seek": lambda request: {
            "position": size if request.get("whence") in (2, "end") else 0,
            "eof": False,
        },
        "guest-file-read": lambda request: {
            "count": len(content[: request["count"]]),
            "buf-b64": base64.b64encode(content[: request["count"]]).decode(),
            "eof": True,
        },
        "guest-file-close": lambda _: {},
        "qga-get-ports": lambda _: [],
    }
    return GuestAgent(start(handlers).address)


@pytest.mark.parametrize("old", [None, 0o600, 0o640])
def test_a_file_that_is_fetched_is_private(start: Start, tmp_path: Path, old: int | None) -> None:
    """It may be /etc/shadow. A file that was there keeps its permissions."""
    back = tmp_path / "back"
    if old:
        back.write_bytes(b"a longer one")
        back.chmod(old)
    with with_file(start, b"secret", 6) as agent:
        assert as_root.fetch(agent, "/etc/shadow", str(back))
    assert (back.read_bytes(), back.stat().st_mode & 0o777) == (b"secret", old or 0o600)
    assert list(tmp_path.glob(".*")) == []


def test_a_file_with_less_than_its_size_is_left_to_the_copies(start: Start, tmp_path: Path) -> None:
    """As those in /sys. The copy of an earlier day stays."""
    (tmp_path / "back").write_bytes(b"good")
    with with_file(start, b"1\n", 4096) as agent:
        assert not as_root.fetch(agent, "/sys/value", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"good"
    assert list(tmp_path.glob(".*")) == []


def test_a_fetch_for_a_user_that_fails_leaves_the_earlier_copy(tmp_path: Path) -> None:
    (tmp_path / "back").write_bytes(b"good")
    outputs = iter([b"9\n", b"short"])
    agent: Any = Mock(address="web")
    agent.exec.side_effect = lambda *_, **__: Mock(returncode=0, stdout=next(outputs))
    with pytest.raises(CopyError, match="/home/u/file: became shorter meanwhile"):
        as_user.fetch(agent, "u", "/home/u/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"good"


def test_no_file_replaces_a_device(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with with_file(start, b"1", 1) as agent:
        assert not as_root.fetch(agent, "/file", str(tmp_path / "fifo"))
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize(
    ("command", "run"),
    [
        ("/bin/sh -c 'echo \"$HOME\"; true'", 'echo "$HOME"; true'),
        ("/bin/sh -c true", "true"),
        ("/bin/sh -c true; false", "/bin/sh -c true; false"),
        ("/bin/sh -c $HOME/script", "/bin/sh -c $HOME/script"),
        ("/bin/bash -c true", "/bin/bash -c true"),
        ("echo 'unfinished", "echo 'unfinished"),
    ],
)
def test_one_shell_is_enough(command: str, run: str) -> None:
    """The one in which Ansible wraps commands, and no other."""
    assert as_user.in_home("/bin/sh", command) == ["/bin/sh", "-c", as_user.IN_HOME + run]
