"""Suspend and shutdown in guests with BusyBox init, with or without its programs, and others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from . import without_systemd
from .agent_socket import AgentSocket
from .ending import ask_for, assert_unanswered, boot_id, console, is_halted, make_mortal, revive
from .service import wait_for
from .vm import KERNEL_OPTIONS, Guest

pytestmark = pytest.mark.timeout(900)

PROGRAMS = {"powerdown": "poweroff", "halt": "halt", "reboot": "reboot"}
BY_INIT = "init shuts down"


def without_ipv6(_folder: Path) -> list[str]:
    return ["-append", f"{KERNEL_OPTIONS} ipv6.disable=1"]


@pytest.fixture(scope="module", params=["BUSYBOX", "BUSYBOX_INIT", "ANOTHER_INIT"])
def machine(request: pytest.FixtureRequest) -> Iterator[Guest]:
    with Guest(without_ipv6, getattr(without_systemd, request.param)) as machine:
        make_mortal(machine)
        yield machine


@pytest.fixture
def mortal(machine: Guest) -> Guest:
    revive(machine)
    return machine


def wait_for_the_end(guest: Guest, mode: str) -> None:
    if mode == "powerdown":
        guest.wait_event("SHUTDOWN", guest=True, reason="guest-shutdown")
    elif mode == "reboot":
        guest.wait_event("RESET", guest=True, reason="guest-reset")
    else:
        wait_for(lambda: is_halted(guest), "the halt")


@pytest.mark.parametrize("mode", PROGRAMS)
def test_shutdown(mortal: Guest, mode: str) -> None:
    said = len(console(mortal))
    agent = ask_for(mortal, "guest-shutdown", mode=mode)
    wait_for_the_end(mortal, mode)
    assert_unanswered(agent)
    ways = console(mortal)[said:]
    kind = mortal.before_init
    told_program, told_init = f"{PROGRAMS[mode]} was called" in ways, BY_INIT in ways
    assert told_program == (kind == without_systemd.BUSYBOX)
    assert told_init == (kind != without_systemd.ANOTHER_INIT)
    if mode == "reboot":
        mortal.wait_until_booted()


def test_sleep_and_wake_up(mortal: Guest) -> None:
    before = boot_id(mortal)
    agent = ask_for(mortal, "guest-suspend-ram")
    mortal.wait_event("SUSPEND")
    assert_unanswered(agent)
    mortal.qmp("system_wakeup")
    mortal.wait_event("WAKEUP")
    with mortal.connect() as agent:
        assert agent.execute("guest-ping") == {}
    assert boot_id(mortal) == before


def test_routes_of_ipv4_alone(mortal: Guest) -> None:
    script = "modprobe virtio_net; ip link set eth0 up; ip address replace 10.0.2.15/24 dev eth0"
    mortal.run(["/bin/sh", "-ec", script])
    with mortal.connect() as agent:
        routes = agent.execute("guest-network-get-route")
        assert [route["destination"] for route in routes] == ["10.0.2.0"]
        assert not mortal.run(["ls", "/proc/net/ipv6_route"], check=False).stdout


# Keys that take little time, an sshd, and BusyBox's DHCP client.
SERVICES = """
rm -f /etc/ssh/ssh_host_rsa_key*
mkdir -p /run/sshd
ip link set lo up
pgrep -x sshd || /usr/sbin/sshd
modprobe virtio_net
ip link set eth0 up
ln -sf /bin/busybox /run/udhcpc
pgrep -x udhcpc || /run/udhcpc -b -i eth0 -p /run/udhcpc.eth0.pid -s /bin/true >/dev/null 2>&1
"""
SCAN = "ssh-keyscan -T 100 -t ecdsa,ed25519 localhost 2>/dev/null | cut -d ' ' -f 2- | sort"
FILES = "cat /etc/ssh/*.pub | cut -d ' ' -f -2 | sort"


def shell(guest: Guest, script: str) -> str:
    return guest.run(["/bin/sh", "-ec", script], timeout=300).stdout


def test_clone_gets_an_identity_of_its_own(mortal: Guest) -> None:
    """Not about power either."""
    shell(mortal, SERVICES)
    before = shell(mortal, "cat /etc/machine-id")
    served = shell(mortal, FILES)
    wait_for(lambda: shell(mortal, SCAN) == served, "sshd to serve its keys")
    wanted = {"hostname": "web-2", "machine_id": True, "ssh_host_keys": True}
    with closing(AgentSocket(mortal.channel_path(), 300)) as agent:
        agent.sync()
        steps = agent.execute("qga-set-identity", **wanted)["steps"]
        assert {step["result"] for step in steps} == {"done"}
        assert steps[-1]["text"].endswith("; sshd was told to read them (SIGHUP)")
        *_, dhcp = agent.execute("qga-resync")["steps"]
    assert dhcp == {"name": "dhcp", "result": "done", "text": "asked to renew: eth0 (udhcpc)"}
    names = shell(mortal, "cat /etc/hostname /proc/sys/kernel/hostname; grep 127 /etc/hosts")
    assert names == "web-2\nweb-2\n127.0.0.1\tlocalhost web-2\n"
    assert shell(mortal, "cat /etc/machine-id") != before
    new = shell(mortal, FILES)
    assert new != served
    wait_for(lambda: shell(mortal, SCAN) == new, "sshd to serve the new keys")


CGROUPS = """
mkdir -p /sys/fs/cgroup
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
"""


def test_programs_within_limits(mortal: Guest) -> None:
    """Not about power: it needs a guest without systemd, and these are the ones."""
    mortal.run(["/bin/sh", "-ec", CGROUPS])
    with mortal.connect() as agent:

        def run(script: str, **how: Any) -> dict[str, Any]:
            begun = agent.execute("qga-exec", path="/bin/sh", arg=["-c", script], **how)
            assert begun["confinement"] == "cgroup"

            def over() -> dict[str, Any] | None:
                seen: dict[str, Any] = agent.execute("qga-exec-read", pid=begun["pid"])
                return seen if seen["exited"] else None

            return wait_for(over, "the program's end") or {}

        hog = run("exec tail /dev/zero", user="nobody", limits={"memory": 8 << 20, "cpu": 0.9})
        assert hog["ended-by"] == "memory"
        daemon = "(setsid sh -c 'exec sleep 4711' <&- >&- 2>&- &); trap '' TERM; sleep 4711"
        assert run(daemon, timeout=1)["ended-by"] == "timeout"
    assert mortal.run(["pgrep", "-f", "sleep 4711"], check=False).status == 1
    left = mortal.run(["/bin/sh", "-c", "ls -d /sys/fs/cgroup/qga*/[0-9]*"], check=False)
    assert left.stdout == ""
