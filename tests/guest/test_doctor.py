"""`qemu-ga --doctor` in a guest: the port, who has it open, the unit, and blocking lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from . import service
from .installed import UNIT, drop_in, installed, restart, show
from .vm import Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("unit")]

PORT = "/dev/virtio-ports/org.qemu.guest_agent.0"
HOLDER = "holder.service"


@pytest.fixture(scope="module")
def unit(guest: Guest) -> Iterator[None]:
    with installed(guest):
        yield


def doctor(guest: Guest, *options: str) -> list[dict[str, str]]:
    """Its findings about the channel, the unit, the agent and the commands."""
    argv = [service.PROGRAM, "--doctor", "--json", *options]
    done = guest.run(argv, check=False)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["well"] == all(each["status"] == "ok" for each in report["findings"])
    assert done.status == (0 if report["well"] else 1)
    found: list[dict[str, str]] = report["findings"]
    return found


def of(findings: list[dict[str, str]], check: str) -> list[dict[str, str]]:
    return [finding for finding in findings if finding["check"] == check]


def test_all_is_well(guest: Guest) -> None:
    pid = service.main_pid(guest, UNIT)
    found = doctor(guest)
    amiss = [each for each in found if each["status"] != "ok" and each["check"] != "clock"]
    assert amiss == []
    assert of(found, "unit")[0]["text"] == f"{UNIT} is active: Serving {PORT}"
    device = service.port_device(guest)
    assert of(found, "channel")[0]["text"] in (
        f"{PORT} is served by pid {pid}",
        f"{device} is served by pid {pid}",
    )
    assert any("hardware clock is /dev/rtc0" in each["text"] for each in of(found, "clock"))
    assert any("clock source is " in each["text"] for each in of(found, "clock"))


def test_a_command_that_a_file_of_the_unit_switches_off(guest: Guest) -> None:
    blocked = (
        "[Service]\n# none of them\nEnvironment=RPC_ARGS=--block-rpcs=guest-get-users,guest-nix\n"
    )
    with drop_in(guest, blocked):
        off, unknown, *_ = of(doctor(guest), "commands")
    place = f"/etc/systemd/system/{UNIT}.d/50-test.conf, line 3"
    assert off["text"].endswith(
        f" is disabled by {place}: block-rpcs=guest-get-users: guest-get-users"
    )
    assert unknown["status"] == "warning"
    assert "unknown command 'guest-nix'" in unknown["text"]


def test_a_port_that_another_program_holds(guest: Guest) -> None:
    device = service.port_device(guest)
    guest.run(["systemctl", "stop", UNIT])
    try:
        guest.run(["systemd-run", f"--unit={HOLDER}", "sh", "-c", f"exec sleep 1000 <>{device}"])
        service.wait_for(
            lambda: device in service.open_files(guest, service.main_pid(guest, HOLDER)),
            "the port to be held",
        )
        pid = service.main_pid(guest, HOLDER)
        found = doctor(guest)
        [held] = of(found, "channel")
        assert held["status"] == "failed"
        assert held["text"].endswith(f" is in use by pid {pid}: sleep 1000")
        assert held["advice"] == f"stop that process: kill {pid}"
        assert of(found, "agent")[0]["text"] == "no agent is running"
        [stopped] = of(found, "unit")
        assert stopped["text"] == f"{UNIT} is inactive"
        assert stopped["advice"].startswith(f"systemctl start {UNIT}; ")
    finally:
        guest.run(["systemctl", "stop", HOLDER], check=False)
        restart(guest)


def test_a_port_of_the_original_agent(guest: Guest) -> None:
    path = "/dev/virtio-ports/org.qemu.guest_agent.original"
    [held] = of(doctor(guest, "--path", path), "channel")
    assert held["status"] == "failed"
    assert held["advice"] == "that is QEMU's own agent: install only one of the two"


def test_a_port_that_is_missing(guest: Guest) -> None:
    path = "/dev/virtio-ports/com.example.missing"
    [missing] = of(doctor(guest, "--path", path), "channel")
    assert missing["text"] == f"{path}: No such file or directory"
    assert (
        "a port of this machine (org.qemu.guest_agent.0, org.qemu.guest_agent.orig"
        in missing["advice"]
    )
    assert "name='com.example.missing'" in missing["advice"]


def test_a_port_that_anybody_may_open(guest: Guest) -> None:
    device = service.port_device(guest)
    guest.run(["chmod", "666", device])
    try:
        found = of(doctor(guest), "channel")
    finally:
        guest.run(["chmod", "600", device])
    assert [each["status"] for each in found] == ["warning", "ok"]
    assert "mode 0666" in found[0]["text"]


def test_while_filesystems_are_frozen(guest: Guest) -> None:
    with guest.connect() as agent:
        agent.execute("guest-fsfreeze-freeze")
        try:
            found = doctor(guest)
        finally:
            agent.execute("guest-fsfreeze-thaw")
    [frozen] = of(found, "state")
    assert frozen["status"] == "warning"
    assert frozen["advice"].startswith("thaw them from the host")
    assert "filesystems are frozen; serving" in of(found, "unit")[0]["text"].lower()


def test_a_masked_unit(guest: Guest) -> None:
    guest.run(["systemctl", "mask", "--runtime", UNIT], check=False)
    try:
        told = of(doctor(guest), "unit")
    finally:
        guest.run(["systemctl", "unmask", "--runtime", UNIT], check=False)
    assert len(told) == 1
    assert show(guest, "ActiveState") == "active"


def test_for_people(guest: Guest) -> None:
    done = guest.run([service.PROGRAM, "--doctor"], check=False)
    assert f"ok       unit: {UNIT} is active: " in done.stdout
    summary = done.stdout.splitlines()[-1]
    assert summary == "All is well." if done.status == 0 else summary in ("1 failed.", "1 warning.")
