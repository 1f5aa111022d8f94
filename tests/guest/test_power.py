"""Suspend and shutdown in a guest of their own, observed by QMP events."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.client import DataPorts, GuestAgent

from .agent_socket import AgentError
from .ending import ask_for, assert_unanswered, boot_id, is_halted, make_mortal, revive
from .service import wait_for
from .vm import AGENT_PORT, DATA_PORTS, Guest

pytestmark = pytest.mark.timeout(900)

SWAP_ON = """
disk=/dev/disk/by-id/virtio-SWAP
until [ -e $disk ]; do sleep 0.1; done
swapoff --all
mkswap $disk
swapon $disk
"""


def swap_disk(folder: Path) -> list[str]:
    path = folder / "swap.img"
    path.touch()
    os.truncate(path, 1 << 30)
    drive = f"if=none,id=swap,file={path},format=raw,cache=unsafe"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=swap,serial=SWAP"]


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    with Guest(swap_disk) as machine:
        make_mortal(machine)
        yield machine


@pytest.fixture
def mortal(machine: Guest) -> Guest:
    """A guest that tests may suspend or shut down; it is booted again if it is down."""
    revive(machine)
    return machine


def assert_sleeps_and_wakes_up(mortal: Guest, mode: str) -> None:
    before = boot_id(mortal)
    agent = ask_for(mortal, f"guest-suspend-{mode}")
    mortal.wait_event("SUSPEND", timeout=120)
    assert_unanswered(agent)
    mortal.qmp("system_wakeup")
    mortal.wait_event("WAKEUP")
    with mortal.connect() as agent:
        assert agent.execute("guest-ping") == {}
        assert agent.execute("guest-get-host-name") == {"host-name": "guest"}
    assert boot_id(mortal) == before


def test_sleep_and_wake_up(mortal: Guest) -> None:
    assert_sleeps_and_wakes_up(mortal, "ram")


@pytest.mark.parametrize("mode", ["disk", "hybrid"])
def test_an_image_on_disk_needs_swap_space(mortal: Guest, mode: str) -> None:
    mortal.run(["swapoff", "--all"])
    with mortal.connect() as agent, pytest.raises(AgentError) as caught:
        agent.execute(f"guest-suspend-{mode}")
    assert str(caught.value) == (
        "the requested suspend mode is not supported by the guest: there is no swap space"
    )


def test_sleep_with_an_image_on_disk(mortal: Guest) -> None:
    mortal.run(["/bin/sh", "-ec", SWAP_ON])
    assert_sleeps_and_wakes_up(mortal, "hybrid")


def test_sleep_on_disk(mortal: Guest) -> None:
    mortal.run(["/bin/sh", "-ec", SWAP_ON])
    agent = ask_for(mortal, "guest-suspend-disk")
    mortal.wait_event("SUSPEND_DISK", timeout=120)
    assert_unanswered(agent)


# Refuses as systemd 257 does when a program holds a lock: of Debian 12's, root is free.
REFUSE = r"""
cat >/run/systemctl <<'end'
#!/bin/sh
case "$* " in
*-i\ *) exec /run/systemctl.real "$@" ;;
is-system-running*) exec /run/systemctl.real "$@" ;;
esac
echo 'Call to PowerOff failed: Operation inhibited by "apt", reason is "an upgrade".' >&2
exit 1
end
chmod +x /run/systemctl
cp /bin/systemctl /run/systemctl.real
mount --bind /run/systemctl /bin/systemctl
"""


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("guest-shutdown", {}),
        ("guest-shutdown", {"mode": "reboot"}),
        ("guest-shutdown", {"mode": "halt"}),
        ("guest-suspend-ram", {}),
        ("qga-shutdown", {"mode": "reboot"}),
    ],
)
def test_what_systemd_refuses_is_refused(
    mortal: Guest, command: str, arguments: dict[str, str]
) -> None:
    before = boot_id(mortal)
    mortal.run(["/bin/sh", "-ec", REFUSE])
    try:
        with mortal.connect() as agent, pytest.raises(AgentError, match='inhibited by "apt"'):
            agent.execute(command, **arguments)
    finally:
        mortal.run(["umount", "/bin/systemctl"])
    time.sleep(5)
    assert boot_id(mortal) == before
    assert mortal.qmp("query-status")["status"] == "running"


def test_who_insists_is_obeyed(mortal: Guest) -> None:
    before = boot_id(mortal)
    mortal.run(["/bin/sh", "-ec", REFUSE])
    agent = ask_for(mortal, "qga-shutdown", mode="reboot", force=True)
    mortal.wait_event("RESET", guest=True, reason="guest-reset")
    assert_unanswered(agent)
    mortal.wait_until_booted()
    assert boot_id(mortal) != before


def test_unknown_mode_of_shutdown(mortal: Guest) -> None:
    with mortal.connect() as agent, pytest.raises(AgentError) as caught:
        agent.execute("guest-shutdown", mode="sleep")
    assert str(caught.value) == "mode is invalid (valid values are: halt|powerdown|reboot"


def test_reboot(mortal: Guest) -> None:
    before = boot_id(mortal)
    agent = ask_for(mortal, "guest-shutdown", mode="reboot")
    mortal.wait_event("RESET", guest=True, reason="guest-reset")
    assert_unanswered(agent)
    mortal.wait_until_booted()
    assert boot_id(mortal) != before
    with mortal.connect() as agent:
        assert agent.execute("guest-ping") == {}


def test_halt(mortal: Guest) -> None:
    """A halted machine stays on and does nothing. QEMU has no event for that."""
    agent = ask_for(mortal, "guest-shutdown", mode="halt")
    mortal.wait_port(AGENT_PORT, is_open=False)
    wait_for(lambda: is_halted(mortal), "the halt")
    assert_unanswered(agent)
    assert mortal.qmp("query-status")["status"] == "running"


def test_powerdown_is_what_is_meant_without_a_mode(mortal: Guest) -> None:
    agent = ask_for(mortal, "guest-shutdown")
    mortal.wait_event("SHUTDOWN", guest=True, reason="guest-shutdown")
    assert_unanswered(agent)


def test_a_host_waits_through_a_reboot_and_continues_watching(mortal: Guest) -> None:
    address = f"unix:{mortal.channel_path()}"
    ports = DataPorts(address, {DATA_PORTS[0].name: mortal.channel_path(DATA_PORTS[0])})
    agent, boot_id = GuestAgent(address, 30), ["cat", "/proc/sys/kernel/random/boot_id"]
    earlier = agent.exec(boot_id).stdout
    with agent.watch("address", ports=ports) as events:
        first = events.started.agent_started_ms
        ask_for(mortal, "guest-shutdown", mode="reboot").close()
        wait_for(lambda: (event := events.next(60)) and event.name == "agent-stopped", "its end")
        met = agent.wait_for("agent", "boot", "address", timeout=300)
        assert agent.exec(boot_id).stdout != earlier
        assert met[1].detail.startswith(("running", "degraded"))
        wait_for(lambda: not events.next(1) and events.started.agent_started_ms > first, "a watch")
        mortal.wait_until_booted()
        mortal.run(["ip", "address", "add", "192.0.2.7/32", "dev", "lo"])
        wait_for(
            lambda: (event := events.next(60)) and event.details["address"] == "192.0.2.7",
            "the event of an address",
        )
