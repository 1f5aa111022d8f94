"""Guests of other hosts: Ansible, and libvirt's transport by ssh.

An ssh that runs the remote command here stands for the network and the other host, and a script for
its nc(1). The rest is real: Ansible, the URI, libvirt's client and its daemon.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ecosystem.ansible_runs import IN_A_GUEST, PROGRAMS, Ansible, Task
from tests.guest.image import CHECKOUT

from .domain import Domain

pytestmark = pytest.mark.timeout(900)

SSH = """\
#!/bin/sh
printf '%s\\n' "$@" >{folder}/arguments
while [ "$1" != host1.example.com ]; do shift; done
shift
exec /bin/sh -c "$*"
"""
NETCAT = """\
#!/usr/bin/python3
import os, socket, sys, threading

def receive():
    while data := there.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    os._exit(0)

there = socket.socket(socket.AF_UNIX)
there.connect(sys.argv[-1])
threading.Thread(target=receive).start()
while data := os.read(0, 65536):
    there.sendall(data)
os._exit(0)
"""


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(PROGRAMS["distribution"], CHECKOUT, tmp_path, {})


def test_through_ssh(domain: Domain, ansible: Ansible, tmp_path: Path) -> None:
    """A program, and a file there and back."""
    programs = {"ssh": SSH.format(folder=tmp_path), "nc": NETCAT}
    for name, script in programs.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    content = os.urandom(300_001)
    (tmp_path / "there").write_bytes(content)
    options = f"command={tmp_path}/ssh&netcat={tmp_path}/nc&socket={domain.libvirt.socket}"
    uri = f"qemu+ssh://root@host1.example.com/session?{options}"
    host = {**IN_A_GUEST, "ansible_host": f"libvirt:{uri}/{domain.name}"}
    tasks: list[Task] = [
        {"raw": "cat /proc/sys/kernel/random/boot_id"},
        {"copy": {"src": "there", "dest": "/root/remote"}},
        {"fetch": {"src": "/root/remote", "dest": "back", "flat": True}},
    ]
    ran = ansible.play(tasks, {"db": host})
    assert [each.status for each in ran] == ["ok"] * 3, ran
    boot_id = domain.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    assert ran[0].result["stdout"].strip() == boot_id.strip()
    assert (tmp_path / "back").read_bytes() == content
    arguments = (tmp_path / "arguments").read_text().split("\n")
    assert {"root", "host1.example.com"} <= {*arguments}
    domain.run(["rm", "/root/remote"])


def test_a_host_that_cannot_be_reached(ansible: Ansible) -> None:
    """The error is that of ssh."""
    host = {**IN_A_GUEST, "ansible_host": "libvirt:qemu+ssh://root@127.0.0.1:1/system/db"}
    (ran,) = ansible.play([{"raw": "true"}], {"db": host})
    assert ran.status == "unreachable"
    assert "connect to host 127.0.0.1 port 1: Connection refused" in ran.result["msg"]
