"""The collection qga.guest, used by the distribution's Ansible and by the one of PyPI."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.guest.vm import Guest
from tests.host.day import Day

from .ansible_runs import IN_A_GUEST, PROGRAMS, Ansible, Task

pytestmark = pytest.mark.timeout(900)

WEB = {"web": IN_A_GUEST}


@pytest.fixture(params=list(PROGRAMS))
def ansible(request: pytest.FixtureRequest, site: Path, web: Day, tmp_path: Path) -> Ansible:
    """Ansible on the host whose only guest is `web`."""
    env = {name: web.env[name] for name in ("QGA_HOST_ROOT", "LC_ALL")}
    return Ansible(PROGRAMS[request.param], site, tmp_path, env)


def test_a_playbook(ansible: Ansible, guest: Guest, tmp_path: Path) -> None:
    """By the guest's name: facts, input, exit statuses, and files both ways."""
    content = os.urandom(3_000_001) + b"\r\n\0"
    (tmp_path / "there").write_bytes(content)
    (tmp_path / "motd.j2").write_text(
        "{{ ansible_facts.hostname }} runs {{ ansible_facts.kernel }}\n"
    )
    script = "cat; echo said >&2; exit 3"
    tasks: list[Task] = [
        {"setup": {"gather_subset": "min"}},
        {"template": {"src": "motd.j2", "dest": "/root/motd", "mode": "0640"}},
        {"command": {"argv": ["/bin/sh", "-c", script], "stdin": "heard"}, "ignore_errors": True},
        {"copy": {"src": "there", "dest": "/root/there"}},
        {"fetch": {"src": "/root/there", "dest": "back", "flat": True}},
        {"raw": "pwd; echo $SHELL"},
        {"command": "cat motd"},
    ]
    ran = ansible.play(tasks, WEB)
    assert [each.status for each in ran] == ["ok", "ok", "failed", "ok", "ok", "ok", "ok"], ran
    command = ran[2].result
    assert (command["stdout"], command["stderr"], command["rc"]) == ("heard", "said", 3)
    assert guest.run(["stat", "--format=%a %U", "/root/motd"]).stdout == "640 root\n"
    kernel = guest.run(["uname", "-r"]).stdout.strip()
    assert ran[6].result["stdout"] == f"guest runs {kernel}"
    assert ran[5].result["stdout"].split() == ["/root", "/bin/bash"]
    assert guest.run(["sha256sum", "/root/there"]).stdout.split()[0] == sha256(content)
    assert (tmp_path / "back").read_bytes() == content
    guest.run(["rm", "-r", "/root/there", "/root/motd", "/root/.ansible"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("ansible", ["distribution"], indirect=True)
def test_the_guests_of_the_host(ansible: Ansible, tmp_path: Path) -> None:
    inventory = tmp_path / "qga.guest.guests.yml"
    inventory.write_text(
        "plugin: qga.guest.guests\n"
        "timeout: 60\n"
        "keyed_groups: [{key: qga.os_version, prefix: version}]\n"
        "groups: {ours: qga.release is not none}\n"
        "compose: {reported: qga.hostname}\n"
    )
    expression = "{{ [group_names | sort, reported, qga.address, qga.state] }}"
    ran = ansible.play([{"raw": "hostname"}, {"debug": {"msg": expression}}], inventory=inventory)
    assert [(each.host, each.status) for each in ran] == [("web", "ok")] * 2, ran
    assert ran[0].result["stdout"].strip() == "guest"
    groups, *rest = ran[1].result["msg"]
    assert groups == ["ours", "qga_answers", "qga_guests", "qga_os_debian", "version_12"]
    assert rest == ["guest", "unix:" + str(guest_socket(ansible)), "answers"]


def guest_socket(ansible: Ansible) -> Path:
    return Path(ansible.env["QGA_HOST_ROOT"]) / "run/vm/web/org.qemu.guest_agent.0"
