"""The modules: Ansible and a real QEMU whose machine has nothing to boot; its agent is scripted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qga.client.threads import beside
from tests.integration.snapshot_machine import Machine, machine, wait_until
from tests.unit.client_peer import Filesystems, Start
from tests.unit.conftest import start

from .ansible_runs import HERE, PROGRAMS, Ansible, Task

__all__ = ["machine", "start"]

pytestmark = pytest.mark.timeout(120)

SNAPSHOT, FREEZE, THAW = "qga.guest.snapshot", "qga.guest.freeze", "qga.guest.thaw"
LOCAL = {"hypervisor": HERE}


@pytest.fixture
def ansible(site: Path, tmp_path: Path) -> Ansible:
    """The modules run with the distribution's Python, whichever Ansible starts them."""
    return Ansible(PROGRAMS["distribution"], site, tmp_path, {})


def test_a_snapshot_is_taken_once(ansible: Ansible, machine: Machine) -> None:
    copy = machine.folder / "copy"
    options = {"guest": machine.peer.address, "qmp": str(machine.socket), "destination": str(copy)}
    task: Task = {SNAPSHOT: {**options, "disks": ["root"]}}
    wrong: Task = {SNAPSHOT: {**options, "destination": f"{copy}-2", "disks": ["nosuch"]}}
    tasks = [{**task, "check_mode": True}, task, task, {**wrong, "ignore_errors": True}]
    ran = ansible.play(tasks, LOCAL)
    assert [each.status for each in ran] == ["ok", "ok", "ok", "failed"], ran
    assert [each.result["changed"] for each in ran] == [True, True, False, False]
    assert ran[1].result["snapshot"] == ran[2].result["snapshot"]
    assert ran[1].result["snapshot"]["consistent"] is True
    assert (copy / "root.qcow2").exists()
    assert not Path(f"{copy}-2").exists()
    assert "nosuch" in ran[3].result["msg"]
    assert machine.guest.frozen == 0


def test_the_snapshot_of_another_guest_does_not_count(
    ansible: Ansible, address: str, tmp_path: Path
) -> None:
    (tmp_path / "snapshot.json").write_text('{"guest": "web", "consistent": true}')
    task: Task = {SNAPSHOT: {"guest": address, "destination": str(tmp_path)}}
    (ran,) = ansible.play([task], LOCAL)
    assert ran.status == "failed"
    assert f"{tmp_path} has a snapshot of web, not of {address}" in ran.result["msg"]


@pytest.fixture
def disks() -> Filesystems:
    return Filesystems()


@pytest.fixture
def address(start: Start, disks: Filesystems) -> str:
    frozen = {"seconds": 1.5, "thaw-in": 598.5}
    state = {"qga-get-freeze": lambda _: {"status": disks.handlers[STATUS]({}), **frozen}}
    return start({**disks.handlers, **state}).address


STATUS = "guest-fsfreeze-status"


def test_freezing_by_tasks(ansible: Ansible, address: str, disks: Filesystems) -> None:
    """Each of them changes something only once, and nothing in check mode."""
    freeze: Task = {FREEZE: {"guest": address}}
    thaw: Task = {THAW: {"guest": address}}
    ran = ansible.play([{**freeze, "check_mode": True}, freeze, freeze], LOCAL)
    assert [each.result["changed"] for each in ran] == [True, True, False], ran
    assert (ran[1].result["count"], ran[1].result["thaw_in"]) == (2, 598.5)
    assert disks.frozen == 2
    ran = ansible.play([{**thaw, "check_mode": True}, thaw, thaw], LOCAL)
    assert [each.result["changed"] for each in ran] == [True, True, False], ran
    assert disks.frozen == 0


def running(address: str, script: str) -> Task:
    options = {"guest": address, "command": ["/bin/sh", "-c", script]}
    return {FREEZE: options, "ignore_errors": True}


def test_a_command_while_frozen(
    ansible: Ansible, address: str, disks: Filesystems, tmp_path: Path
) -> None:
    """The guest is frozen while the command runs, and thawed when it has ended or failed."""
    wait = f"touch {tmp_path}/started; until [ -e {tmp_path}/seen ]; do sleep 0.1; done; echo now"
    tasks = [running(address, wait), running(address, "exit 3")]
    playing = beside(lambda: ansible.play(tasks, LOCAL))
    wait_until((tmp_path / "started").exists, "the command")
    assert disks.frozen == 2
    (tmp_path / "seen").touch()
    ran = playing.result()
    assert [each.status for each in ran] == ["ok", "failed"], ran
    assert (ran[0].result["stdout"], ran[0].result["count"]) == ("now\n", 2)
    assert "the command exited with 3; the guest is thawed" in ran[1].result["msg"]
    assert disks.frozen == 0


def test_a_module_that_is_ended_thaws_first(
    ansible: Ansible, address: str, disks: Filesystems, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    task = running(address, f"echo $PPID >{pid}; exec sleep 2222")
    playing = beside(lambda: ansible.play([task], LOCAL))
    wait_until(lambda: pid.exists() and pid.read_text(), "the command")
    assert disks.frozen == 2
    os.kill(int(pid.read_text()), signal.SIGTERM)
    assert [each.status for each in playing.result()] == ["failed"]
    assert disks.frozen == 0
