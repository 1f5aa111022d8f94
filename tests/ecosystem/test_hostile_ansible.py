"""Guests that lie to Ansible: what they report is neither evaluated nor printed as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.agent import HostileAgent, Request, encode
from tests.hostile.scenarios import ESCAPES, RAW_ESCAPES

from .ansible_runs import IN_A_GUEST, PROGRAMS, Ansible, Task

pytestmark = pytest.mark.timeout(120)

MB = 1 << 20


@pytest.fixture(params=list(PROGRAMS))
def ansible(request: pytest.FixtureRequest, site: Path, tmp_path: Path) -> Ansible:
    return Ansible(PROGRAMS[request.param], site, tmp_path, {})


@pytest.fixture
def evil(tmp_path: Path) -> str:
    """A template that leaves a file if it is evaluated."""
    return f"{{{{ lookup('pipe', 'touch {tmp_path}/evaluated') }}}}{{{{ 6 * 7 }}}}"


def lying(texts: dict[str, str]) -> Any:
    """A scenario in which members have these values, whatever the command."""

    def scenario(request: Request, honest: Any) -> Iterator[bytes]:
        yield encode(request, replaced(honest, texts))

    return scenario


def replaced(value: Any, texts: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: texts.get(name) or replaced(each, texts) for name, each in value.items()}
    return [replaced(each, texts) for each in value] if isinstance(value, list) else value


def silent(_request: Request, _honest: Any) -> Iterator[bytes]:
    return iter([])


def refusing(text: str) -> Any:
    def scenario(request: Request, _honest: Any) -> Iterator[bytes]:
        error = {"class": "GenericError", "desc": text}
        yield json.dumps({"error": error, "id": request.get("id")}).encode() + b"\n"

    return scenario


def test_templates_in_facts(ansible: Ansible, evil: str, tmp_path: Path) -> None:
    names = ("host-name", "id", "version-id", "pretty-name", "version")
    inventory = tmp_path / "guests.yml"
    with HostileAgent(tmp_path / "evil", lying(dict.fromkeys(names, evil))) as agent:
        inventory.write_text(
            f"plugin: qga.guest.guests\nguests: {{evil: '{agent.address}'}}\n"
            "compose: {composed: qga.hostname, joined: \"'is ' ~ qga.hostname\"}\n"
            "keyed_groups: [{key: qga.os_version, prefix: of}]\n"
        )
        shown = "{{ [qga.hostname, qga.os, composed, joined, 'x' ~ qga.os_id] }}"
        task: Task = {"debug": {"msg": shown}, "connection": "local"}
        (ran,) = ansible.play([task], inventory=inventory)
        listed = json.loads(ansible.run("ansible-inventory", "-i", str(inventory), "--list"))
    assert ran.status == "ok", ran
    assert ran.result["msg"] == [evil, evil, evil, f"is {evil}", f"x{evil}"]
    assert not (tmp_path / "evaluated").exists()
    groups = set(listed) - {"_meta", "all"}
    assert all(name.startswith(("qga_", "of_")) for name in groups), groups
    assert all(len(name) <= 300 for name in groups)


def test_names_that_would_be_evaluated(ansible: Ansible, evil: str, tmp_path: Path) -> None:
    inventory = tmp_path / "guests.yml"
    with HostileAgent(tmp_path / "fine", lying({})) as agent:
        named = dict.fromkeys((evil, "localhost", "fine"), agent.address)
        inventory.write_text(json.dumps({"plugin": "qga.guest.guests", "guests": named}))
        task: Task = {"debug": {"msg": "{{ inventory_hostname }}"}, "connection": "local"}
        ran = ansible.play([task], inventory=inventory)
    assert [each.result["msg"] for each in ran] == ["fine"], ran
    assert not (tmp_path / "evaluated").exists()


def test_huge_facts(ansible: Ansible, tmp_path: Path) -> None:
    huge = "x" * MB
    inventory = tmp_path / "guests.yml"
    names = dict.fromkeys(("host-name", "id", "pretty-name", "ip-address", "name"), huge)
    with HostileAgent(tmp_path / "huge", lying(names)) as agent:
        inventory.write_text(f"plugin: qga.guest.guests\nguests: {{huge: '{agent.address}'}}\n")
        out = ansible.run("ansible-inventory", "-i", str(inventory), "--list")
    assert len(out) < 10_000
    assert '"qga_answers"' in out


def test_a_silent_guest_does_not_hide_the_others(ansible: Ansible, tmp_path: Path) -> None:
    inventory = tmp_path / "guests.yml"
    with (
        HostileAgent(tmp_path / "1", silent) as mute,
        HostileAgent(tmp_path / "2", lying({})) as web,
    ):
        guests = {"mute": mute.address, "web": web.address, "gone": f"unix:{tmp_path}/3"}
        configuration = {"plugin": "qga.guest.guests", "timeout": 2, "guests": guests}
        inventory.write_text(json.dumps(configuration))
        listed = json.loads(ansible.run("ansible-inventory", "-i", str(inventory), "--list"))
    assert listed["qga_silent"] == {"hosts": ["mute"]}
    assert listed["qga_answers"] == {"hosts": ["web"]}
    assert listed["qga_unreachable"] == {"hosts": ["gone"]}
    error = listed["_meta"]["hostvars"]["gone"]["qga"]["error"]
    assert "No such file or directory" in json.dumps(error)


def test_what_is_wrong_is_named(ansible: Ansible, tmp_path: Path) -> None:
    ansible.env["QGA_HOST_ROOT"] = str(tmp_path)
    wrong = {**IN_A_GUEST, "ansible_host": "vsock:three"}
    ran = ansible.play([{"raw": "true"}], {"nosuch": IN_A_GUEST, "wrong": wrong})
    said = {each.host: (each.status, each.result["msg"]) for each in ran}
    assert {status for status, _ in said.values()} == {"unreachable"}
    assert "nosuch: no running guest with this name has an agent port" in said["nosuch"][1]
    assert "expected vsock:CID:PORT" in said["wrong"][1]


def test_templates_and_escapes_in_errors(ansible: Ansible, evil: str, tmp_path: Path) -> None:
    with HostileAgent(tmp_path / "evil", refusing(evil + ESCAPES)) as agent:
        host = {**IN_A_GUEST, "ansible_host": agent.address}
        tasks: list[Task] = [
            {"raw": "true", "register": "said", "ignore_unreachable": True},
            {"debug": {"msg": "{{ said.msg }}"}, "connection": "local"},
        ]
        ran = ansible.play(tasks, {"evil": host})
        ansible.env["ANSIBLE_STDOUT_CALLBACK"] = "default"
        hosts, playbook = str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml")
        shown = ansible.run("ansible-playbook", "-i", hosts, playbook, check=False)
    assert [each.status for each in ran] == ["unreachable", "ok"], ran
    assert "lookup('pipe'" in ran[1].result["msg"]
    assert not (tmp_path / "evaluated").exists()
    assert not [escape for escape in RAW_ESCAPES if escape in shown]
