"""The agent in each guest of the matrix, from its installation to the guest's shutdown.

The tests of a guest run in this order, and each begins where the one before has left the guest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.guest.agent_socket import AgentSocket
from tests.guest.comparing import READ_ONLY, compare
from tests.guest.differences import BEFORE_9_1, IN_ANY_GUEST, NEW_COMMANDS, ON_ARM64
from tests.guest.package import PACKAGE, is_frozen, put
from tests.guest.service import wait_for
from tests.guest.users import TERMINAL
from tests.guest.vm import Guest
from tests.packaging.built import CHECKOUT

from . import newest
from .packages import (
    APT,
    commands,
    install,
    install_by_pip,
    processes,
    shell,
    the_process,
    wait_until_ours_serves,
)
from .recipes import Recipe

pytestmark = pytest.mark.timeout(1200)

# tests/guest/test_package.py does the same in a guest with systemd.
IN_TEST_PACKAGE = pytest.mark.rarely_in(init="systemd")
FACTS = "uname -r; python3 -c 'import platform; print(platform.python_version())'"
SERVICE = {
    "systemd": "systemctl {} qemu-guest-agent",
    "sysvinit": "service qemu-guest-agent {}",
    "openrc": "rc-service qemu-guest-agent {}",
}
WITH_UTMP = ("bullseye", "bookworm")  # login(1) of Debian 13 leaves no record for QEMU's agent
# Bytes beyond an interpreter that does nothing, by Python; the journal's library takes a million.
MOST_MEMORY = {"3 11": 6_600_000, "3 13": 7_000_000, "3 14": 8_000_000}
BARE = "python3 -ISXutf8 -c 'print(open(\"/proc/self/status\").read())'"
PROFILE = "/usr/share/apparmor/extra-profiles/usr.sbin.qemu-ga"
LOADED = "/etc/apparmor.d/usr.sbin.qemu-ga"
OPENRC = "/etc/init.d/qga"
BOOT = {
    "systemd": "qemu-guest-agent.service",
    "sysvinit": "/etc/init.d/qemu-guest-agent is enabled for sysvinit in rc2.d rc3.d rc4.d rc5.d",
    "openrc": "/etc/init.d/qemu-guest-agent is enabled for OpenRC in default",
}


@pytest.fixture
def agent(guest: Guest) -> Iterator[AgentSocket]:
    with guest.connect() as connected:
        yield connected


def resident(guest: Guest, prints_status: str) -> int:
    """Resident memory in bytes, of the output of a command as in proc_pid_status(5)."""
    status = shell(guest, prints_status)
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def service(guest: Guest, recipe: Recipe, action: str) -> str:
    return shell(guest, SERVICE[recipe.init].format(action))


def test_installed_over_the_running_original(
    guest: Guest, recipe: Recipe, record_property: Callable[[str, object], None]
) -> None:
    with guest.connect() as theirs:
        assert "qga-get-metrics" not in commands(theirs)
        version = theirs.execute("guest-info")["version"]
    kernel, python = shell(guest, FACTS).splitlines()
    record_property("facts", [recipe.arch, kernel, python, recipe.init, version])
    (install if recipe.suite != "bullseye" else install_by_pip)(guest)
    wait_until_ours_serves(guest)


@pytest.mark.only_in(arch="amd64")
def test_it_is_small(guest: Guest, recipe: Recipe) -> None:
    """Right after the first request, beside an interpreter that does nothing."""
    service(guest, recipe, "restart")
    with AgentSocket(guest.channel_path(), timeout=120) as agent:
        assert agent.execute("guest-ping") == {}
    ours, bare = resident(guest, f"cat /proc/{the_process(guest)}/status"), resident(guest, BARE)
    python = shell(guest, "python3 -c 'import sys; print(*sys.version_info[:2])'")
    most = MOST_MEMORY.get(python.strip(), max(MOST_MEMORY.values()))
    assert ours - bare < most, f"{ours} bytes beside {bare}"


def test_replies_are_those_of_the_releases_agent(
    guest: Guest, recipe: Recipe, agent: AgentSocket
) -> None:
    if recipe.suite in WITH_UTMP:
        log_in(guest)
    assert guest.original is not None
    compare_all(guest.original, agent, recipe.arch)


def test_replies_are_those_of_the_newest_agent(
    guest: Guest, recipe: Recipe, agent: AgentSocket
) -> None:
    with newest.started(guest) as theirs:
        assert commands(theirs) >= NEW_COMMANDS
        compare_all(theirs, agent, recipe.arch)


def compare_all(theirs: AgentSocket, agent: AgentSocket, arch: str) -> None:
    """Compare the replies of commands that change nothing; report all differences at once."""
    version = theirs.execute("guest-info")["version"]
    release = [int(part) for part in version.split(".")[:2]]
    listed = [*IN_ANY_GUEST, *(BEFORE_9_1 if release < [9, 1] else [])]
    listed += ON_ARM64 if arch == "arm64" else []
    faults = []
    for command in sorted({*READ_ONLY, *NEW_COMMANDS} & commands(theirs)):
        try:
            # QEMU 5.2 lists processors by number.
            ordered = release > [5, 2] or command != "guest-get-vcpus"
            compare(theirs, agent, command, listed, all_met=False, ordered=ordered)
        except AssertionError as error:
            faults.append(f"{command}: {error}")
    assert not faults, "\n".join(faults)


def log_in(guest: Guest) -> None:
    """Log root in on a terminal, for as long as the guest runs."""
    guest.write_file("/run/terminal.py", TERMINAL)
    shell(guest, ">>/run/utmp; setsid python3 /run/terminal.py </dev/null >/dev/null 2>&1 &")
    wait_for(lambda: "root" in shell(guest, "grep -ao root /run/utmp || true"), "the login", 300)


@IN_TEST_PACKAGE
def test_what_is_frozen_stays_so_over_a_restart(guest: Guest, recipe: Recipe) -> None:
    pid = the_process(guest)
    with guest.connect() as agent:
        count = agent.execute("guest-fsfreeze-freeze")
        assert count >= 1
    assert is_frozen(guest, "/")
    service(guest, recipe, "restart")
    wait_until_ours_serves(guest)
    assert the_process(guest) != pid
    with guest.connect() as agent:
        assert agent.execute("guest-fsfreeze-status") == "frozen"
        assert agent.execute("guest-fsfreeze-thaw") == count
        assert agent.execute("guest-fsfreeze-status") == "thawed"
    assert not is_frozen(guest, "/")


@IN_TEST_PACKAGE
def test_stopped_and_started_again(guest: Guest, recipe: Recipe) -> None:
    pid = the_process(guest)
    service(guest, recipe, "stop")
    assert processes(guest) == {}
    service(guest, recipe, "start")
    wait_until_ours_serves(guest)
    service(guest, recipe, "start")
    again = the_process(guest)
    assert again != pid
    service(guest, recipe, "restart")
    wait_until_ours_serves(guest)
    assert the_process(guest) != again
    service(guest, recipe, "status")


@IN_TEST_PACKAGE
def test_serves_after_a_reboot(guest: Guest) -> None:
    guest.forget_events()
    with guest.connect() as agent:
        agent.send(b'{"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}\n')
    guest.wait_event("RESET", timeout=300, guest=True)
    guest.wait_until_booted()
    wait_until_ours_serves(guest)


def test_doctor_reports_what_starts_it_at_boot(guest: Guest, recipe: Recipe) -> None:
    program = "/opt/qga/bin/qemu-ga" if recipe.suite == "bullseye" else "qemu-ga"
    report = shell(guest, f"{program} --doctor || true")
    [boot] = [line for line in report.splitlines() if " boot: " in line]
    assert boot.startswith("ok "), report
    assert BOOT[recipe.init] in boot


@pytest.mark.only_in(init="systemd")
def test_systemd_reports_it_as_enabled(guest: Guest, recipe: Recipe) -> None:
    assert service(guest, recipe, "is-enabled") == "enabled\n"


@pytest.mark.only_in(suite="trixie", init="systemd", arch="amd64")
def test_apparmor_would_deny_nothing_that_it_does(guest: Guest, recipe: Recipe) -> None:
    """The profile is in complain mode: what it does not list is in the kernel's log."""
    shell(guest, f"cp {PROFILE} /etc/apparmor.d/; apparmor_parser --replace {LOADED}; dmesg -C")
    service(guest, recipe, "restart")
    wait_until_ours_serves(guest)
    confined = shell(guest, f"cat /proc/{the_process(guest)}/attr/current")
    assert confined == "qemu-ga (complain)\n"
    with guest.connect() as agent:
        use(agent)
    assert the_process(guest)
    assert shell(guest, "dmesg | grep 'apparmor=\"ALLOWED\"' || true") == ""


def use(agent: AgentSocket) -> None:
    """Call what only looks, and what changes files, starts programs, freezes and sets the clock."""
    for command in sorted({*READ_ONLY, *NEW_COMMANDS}):
        agent.execute(command)
    handle = agent.execute("guest-file-open", path="/root/written", mode="w")
    agent.execute("guest-file-close", handle=handle)
    agent.execute("guest-exec", path="/bin/true")
    agent.execute("guest-ssh-add-authorized-keys", username="root", keys=["ssh-rsa A"])
    agent.execute("guest-set-user-password", username="root", password="YQ==", crypted=False)
    agent.execute("guest-set-vcpus", vcpus=[{"logical-id": 1, "online": True}])
    agent.execute("guest-fstrim")
    agent.execute("guest-fsfreeze-freeze")
    agent.execute("guest-fsfreeze-thaw")
    agent.execute("guest-set-time")


def test_becomes_a_clone_and_itself_again(guest: Guest, agent: AgentSocket) -> None:
    ids = "cat /etc/machine-id /var/lib/dbus/machine-id 2>/dev/null || true"
    has_id = shell(guest, "ls /etc/machine-id /var/lib/dbus/machine-id 2>/dev/null || true") != ""
    for name in ("web-2", "guest"):
        before = shell(guest, ids)
        wanted = {"hostname": name, "machine_id": True, "ssh_host_keys": True}
        steps = agent.execute("qga-set-identity", **wanted)["steps"]
        of_id = "done" if has_id else "not-applicable"
        assert [step["result"] for step in steps] == ["done", of_id, "not-applicable"]
        assert shell(guest, "hostname; cat /etc/hostname") == f"{name}\n{name}\n"
        assert (shell(guest, ids) != before) is has_id
    entropy = "A" * 24  # 18 bytes
    steps = agent.execute("qga-resync", time=time.time_ns(), entropy=entropy)["steps"]
    assert [step["result"] for step in steps] == ["done", "done", "not-applicable"]


@pytest.mark.only_in(init="openrc")
def test_limits_hold_without_systemd(guest: Guest, agent: AgentSocket) -> None:
    bomb = "b() { b & b & }; b & exec sleep 1000"
    limits = {"processes": 4, "memory": 32 << 20}
    argv = {"path": "/bin/sh", "arg": ["-c", bomb], "user": "nobody", "timeout": 4}
    started = agent.execute("qga-exec", **argv, limits=limits)
    assert started["confinement"] == "cgroup"

    def over() -> dict[str, Any] | None:
        seen: dict[str, Any] = agent.execute("qga-exec-read", pid=started["pid"])
        return seen if seen["exited"] else None

    assert (wait_for(over, "the end of the program") or {})["ended-by"] == "timeout"
    assert shell(guest, "find /proc -maxdepth 1 -name '[0-9]*' -user nobody") == ""


@pytest.mark.only_in(init="openrc")
def test_openrcs_own_script_starts_it_again_when_it_dies(guest: Guest, recipe: Recipe) -> None:
    service(guest, recipe, "stop")
    put(guest, CHECKOUT / "packaging/openrc/qemu-guest-agent", OPENRC)
    shell(guest, f"chmod 755 {OPENRC}; rc-service qga start")
    wait_until_ours_serves(guest)
    pid = the_process(guest)
    shell(guest, f"kill -KILL {pid}")
    wait_until_ours_serves(guest)
    assert the_process(guest) != pid
    shell(guest, "rc-service qga stop")
    assert processes(guest) == {}
    service(guest, recipe, "start")
    wait_until_ours_serves(guest)


@pytest.mark.only_in(by_script=True)
def test_purged_it_is_gone_and_installed_again_it_serves(guest: Guest) -> None:
    shell(guest, f"{APT} purge qga")
    assert processes(guest) == {}
    assert (
        shell(
            guest, "find /etc -name '*qemu*guest-agent*'; ls /run/qemu-ga.pid 2>/dev/null || true"
        )
        == ""
    )
    shell(guest, f"{APT} install {PACKAGE}")
    wait_until_ours_serves(guest)


@IN_TEST_PACKAGE
def test_shuts_the_guest_down(guest: Guest) -> None:
    with guest.connect() as agent:
        agent.send(b'{"execute": "guest-shutdown"}\n')
    guest.wait_event("SHUTDOWN", timeout=300, guest=True)
