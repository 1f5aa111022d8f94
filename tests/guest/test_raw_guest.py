"""A guest with neither systemd nor packages: the agent is one file, and process 1."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .agent_socket import AgentError, AgentSocket
from .vm import ORIGINAL_PORT, Guest
from .without_systemd import OF_SYSTEMD, program

pytestmark = pytest.mark.timeout(900)

# A script for init, no links to ports, a Python without other packages, and of the agent nothing
# but its one file.
RAW_INIT = f"""\
#!/bin/busybox sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir /run/original
mount -t ext4 -o ro /dev/vdb /opt/qga
modprobe virtio_console
until original=$(grep -lx {ORIGINAL_PORT.name} /sys/class/virtio-ports/*/name); do sleep 0.1; done
original=${{original%/name}}
/usr/sbin/qemu-ga --path=/dev/${{original##*/}} --statedir=/run/original &
cd /opt/qga
exec python3 -I -S qga.pyz --statedir=/run
"""
RAW = f"/bin/busybox rm -rf usr/lib/python3/dist-packages {OF_SYSTEMD}\n" + program(
    "sbin/init", RAW_INIT
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    with Guest(before_init=RAW) as machine:
        yield machine


@pytest.fixture
def agent(machine: Guest) -> Iterator[AgentSocket]:
    with machine.connect() as agent:
        yield agent


def test_it_is_the_one_file(machine: Guest) -> None:
    init = machine.run(["cat", "/proc/1/cmdline"]).stdout.split("\0")
    assert init[:4] == ["python3", "-I", "-S", "qga.pyz"]
    assert not machine.run(["/bin/sh", "-c", "ls /usr/lib/python3/dist-packages || true"]).stdout


def test_it_serves(machine: Guest, agent: AgentSocket) -> None:
    machine.write_file("/etc/hostname", "raw\n")
    handle = agent.execute("guest-file-open", path="/etc/hostname")
    assert agent.execute("guest-file-read", handle=handle)["buf-b64"] == "cmF3Cg=="
    agent.execute("guest-file-close", handle=handle)
    assert [each["mountpoint"] for each in agent.execute("guest-get-fsinfo")].count("/") == 1
    assert {each["name"] for each in agent.execute("guest-network-get-interfaces")} >= {"lo"}
    names = {each["name"] for each in agent.execute("qga-get-ports")}
    assert "org.qemu.guest_agent.0" in names


def test_programs_run_and_are_reaped(machine: Guest, agent: AgentSocket) -> None:
    pid = agent.execute("guest-exec", path="/bin/sh", arg=["-c", "sleep 0.2 & echo ok"],
                        capture_output=True)["pid"]  # fmt: skip
    assert machine.wait_exec(agent, ["sh"], pid).stdout == "ok\n"


def test_keys_are_read_by_the_helper(machine: Guest, agent: AgentSocket) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL"
    agent.execute("guest-ssh-add-authorized-keys", username="root", keys=[key])
    assert machine.run(["cat", "/root/.ssh/authorized_keys"]).stdout == f"{key}\n"
    assert agent.execute("guest-ssh-get-authorized-keys", username="root") == {"keys": [key]}


def test_what_is_missing_is_named(agent: AgentSocket) -> None:
    with pytest.raises(
        AgentError,
        match="this needs psutil, which the guest's Python lacks; install python3-psutil",
    ):
        agent.execute("qga-get-metrics")
