"""A real guest found on its host, and looked over by qgactl doctor."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from qga import __version__
from qga.client.sockets import connected_paths, connections_to
from tests.guest.service import stopped, wait_for
from tests.guest.vm import Guest
from tests.integration.qgactl_process import QGACTL, Result, environment
from tests.integration.test_qgactl_hosts import states

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def root(guest: Guest, tmp_path: Path) -> Path:
    """A host on which nothing runs but this guest."""
    assert guest.qemu is not None
    (tmp_path / "proc").mkdir()
    for name in ("tmp", "proc/1", f"proc/{guest.qemu.pid}"):
        (tmp_path / name).symlink_to(f"/{name}")
    return tmp_path


def qgactl(root: Path, *arguments: str) -> Result:
    done = subprocess.run(
        [*QGACTL, "--timeout", "30", *arguments],
        capture_output=True,
        text=True,
        env={**environment(None), "QGA_HOST_ROOT": str(root)},
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def is_in_use(guest: Guest) -> bool:
    """Whether somebody is connected to the agent, for as long as QEMU thinks so."""
    return connections_to(guest.channel_path(), connected_paths()) > 0


def name_of(guest: Guest) -> str:
    assert guest.qemu is not None
    return f"qemu-{guest.qemu.pid}"


def test_list(guest: Guest, root: Path) -> None:
    status, out, err = qgactl(root, "list", "--long")
    assert (status, err) == (0, "")
    path = guest.channel_path()
    head, _, row = out.splitlines()
    assert re.split(r" {2,}", head) == [
        "Guest",
        "State",
        "Agent",
        "OS",
        "Addresses",
        "Connect with",
    ]
    name, state, version, system, *addresses, address = re.split(r" {3,}", row)
    assert (name, state, version) == (name_of(guest), "answers", f"11.1.3 (qga {__version__})")
    assert system.startswith("Debian GNU/Linux 12")
    assert len(addresses) <= 1
    assert os.path.realpath(address[len("unix:") :]) == os.path.realpath(path)
    (found,) = json.loads(qgactl(root, "list", "--json")[1])
    assert found["host-name"] == "guest"


def test_the_guest_by_its_name(guest: Guest, root: Path) -> None:
    status, out, _ = qgactl(root, "--connect", name_of(guest), "call", "guest-get-host-name")
    assert (status, json.loads(out)) == (0, {"host-name": "guest"})


def test_doctor_finds_all_well(guest: Guest, root: Path) -> None:
    wait_for(lambda: not is_in_use(guest), "the last connection to end")
    status, out, err = qgactl(root, "doctor", name_of(guest))
    assert (status, err) == (0, ""), out
    found = states(out)
    for check in ("clock", "round trip"):  # an emulated guest may lag behind
        assert found.pop(check) in {"ok", "warning"}
    assert set(found.values()) == {"ok"}, out
    assert f"\nok      version: 11.1.3, qga {__version__} with Python 3.11.2\n" in out


def test_doctor_sees_that_the_agent_does_not_run(guest: Guest, root: Path) -> None:
    with stopped(guest):
        status, out, _ = qgactl(root, "--timeout", "1", "doctor", name_of(guest))
    assert status == 1
    assert states(out)["answer"] == "failed"
    assert "is the agent running in the guest (systemctl start qemu-guest-agent)?" in out


def test_doctor_sees_that_filesystems_are_frozen(guest: Guest, root: Path) -> None:
    with guest.connect() as agent:
        agent.execute("guest-fsfreeze-freeze")
    try:
        status, out, _ = qgactl(root, "doctor", name_of(guest))
        refused = qgactl(root, "--connect", name_of(guest), "call", "guest-get-osinfo")
    finally:
        with guest.connect() as agent:
            agent.execute("guest-fsfreeze-thaw")
    assert status == 0
    assert states(out)["filesystems"] == "warning"
    assert "filesystems: frozen\n        try: " in out
    assert refused[0] == 1
    assert refused[2].startswith(f"qgactl: {name_of(guest)} is frozen since ")
    assert refused[2].endswith(" ago); thaw it with `qgactl thaw`\n")
