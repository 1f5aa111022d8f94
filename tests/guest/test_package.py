"""The Debian package replaces the original in a guest that has nothing else of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.packaging.built import CHECKOUT

from .agent_socket import AgentError
from .package import (
    NEWER_PACKAGE,
    NEWER_VERSION,
    PACKAGE,
    UNIT,
    apt,
    data_disk,
    data_filesystem,
    files,
    is_frozen,
    is_ours,
    make_debian,
    refused,
    replug,
    show,
    wait_until_active,
)
from .service import wait_for
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

CONFIG = "/etc/qemu/qemu-ga.conf"
HOOK = "/etc/qemu/fsfreeze-hook"
DEFAULTS = "/etc/default/qemu-guest-agent"
AUDIT = ("guest-ping", "guest-get-osinfo", "guest-get-fsinfo", "guest-network-get-interfaces")
KILLS = 5


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    with Guest(data_disk) as machine:
        make_debian(machine)
        yield machine


@pytest.fixture
def original(machine: Guest) -> Guest:
    """The guest as its administrator has set it up, with the original serving the host."""
    machine.write_file(CONFIG, "[general]\nblock-rpcs=guest-get-time\n")
    machine.write_file(DEFAULTS, "DAEMON_ARGS=--block-rpcs=guest-get-users\n")
    machine.run(["/bin/sh", "-ec", f"echo '# changed' >>{HOOK}"])
    machine.run(["systemctl", "restart", UNIT])
    with machine.connect() as agent:
        assert not agent.execute("guest-info")["version"].startswith("10.")
    return machine


@pytest.fixture
def guest(machine: Guest) -> Guest:
    """The guest with our package, and no configuration."""
    if machine.run(["test", "-e", "/usr/share/qga"], check=False).status:
        apt(machine, "install", PACKAGE)
    machine.run(["rm", "-f", DEFAULTS])
    return machine


def test_takes_over_from_the_running_original_and_is_gone_after_a_purge(original: Guest) -> None:
    guest = original
    before = files(guest)
    kept = guest.run(["sha256sum", CONFIG, DEFAULTS, HOOK]).stdout
    apt(guest, "install", PACKAGE)
    wait_until_active(guest)
    assert is_ours(guest)
    with guest.connect() as agent:
        assert agent.execute("guest-info")["version"] == "11.1.3"
        assert refused(agent, "guest-get-time")
        assert refused(agent, "guest-get-users")
        assert not refused(agent, "guest-exec")
    assert guest.run(["sha256sum", CONFIG, DEFAULTS, HOOK]).stdout == kept
    # The original's remains go; the unit of the same name, now ours, must not.
    apt(guest, "purge", "qemu-guest-agent")
    replug(guest)
    assert is_ours(guest)
    apt(guest, "purge", "qga")
    assert show(guest, "LoadState") == "not-found"
    assert files(guest) - before == set()
    assert CONFIG not in files(guest)


def test_comes_up_at_boot_by_the_udev_rule_alone(guest: Guest) -> None:
    guest.run(["/bin/sh", "-ec", f"systemctl disable --quiet {UNIT}; sync"])
    guest.reset()
    wait_until_active(guest)
    guest.run(["systemctl", "enable", "--quiet", UNIT])
    assert is_ours(guest)
    with guest.connect() as agent:
        assert agent.execute("guest-ping") == {}


def test_the_code_is_compiled_when_it_is_installed(guest: Guest) -> None:
    compiled = guest.run(["find", "/usr/share/qga", "-name", "*.pyc"]).stdout.splitlines()
    sources = guest.run(["find", "/usr/share/qga", "-name", "*.py"]).stdout.splitlines()
    assert len(compiled) == len(sources) > 0


def test_systemd_finds_no_fault(guest: Guest) -> None:
    units = [UNIT, "qemu-guest-agent-vsock.service", "qemu-guest-agent-vsock.socket"]
    # The image has no manual pages.
    told = guest.run(["systemd-analyze", "verify", "--man=no", *units])
    assert told.stdout + told.stderr == ""


def test_started_again_within_two_seconds_of_a_kill(guest: Guest) -> None:
    """As measured by systemd. Several attempts, because the machine is busy."""
    wait_until_active(guest)
    seconds = [seconds_until_started(guest) for _ in range(KILLS)]
    assert min(seconds) < 2, seconds
    with guest.connect() as agent:
        assert agent.execute("guest-ping") == {}


def seconds_until_started(guest: Guest) -> float:
    """Kill the agent; return the seconds until systemd has started the next one."""
    pid = show(guest, "MainPID")
    guest.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", UNIT])
    wait_for(
        lambda: show(guest, "MainPID") not in ("0", pid) and show(guest, "ActiveState") == "active",
        "another agent",
    )
    gone = int(show(guest, "ActiveExitTimestampMonotonic"))
    return (int(show(guest, "ExecMainStartTimestampMonotonic")) - gone) / 1e6


def test_goes_and_comes_with_the_port(guest: Guest) -> None:
    wait_until_active(guest)
    pid = show(guest, "MainPID")
    replug(guest)
    assert show(guest, "MainPID") != pid
    with guest.connect() as agent:
        assert agent.execute("guest-ping") == {}


def test_the_journal_tells_who_ran_what(guest: Guest) -> None:
    wait_until_active(guest)
    with guest.connect() as agent:
        agent.execute("guest-exec", path="/bin/true")

    def entries() -> list[str]:
        argv = ["journalctl", "--quiet", "--output=json", f"--unit={UNIT}"]
        return guest.run([*argv, "QGA_COMMAND=guest-exec"]).stdout.splitlines()

    entry = json.loads(wait_for(entries, "the entry in the journal")[-1])
    assert entry["MESSAGE_ID"]
    assert entry["QGA_CHANNEL"]
    assert entry["QGA_RESULT"]
    assert int(entry["QGA_DURATION_USEC"]) >= 0


def test_hardened_it_only_looks(guest: Guest) -> None:
    folder = f"/etc/systemd/system/{UNIT}.d"
    apply = f"systemctl daemon-reload; systemctl restart {UNIT}"
    guest.run(
        ["/bin/sh", "-ec", f"mkdir {folder}; cp /usr/share/qga/hardened.conf {folder}; {apply}"]
    )
    try:
        with guest.connect() as agent:
            for command in AUDIT:
                agent.execute(command)
            for command in ("guest-exec", "guest-file-open", "guest-shutdown"):
                with pytest.raises(AgentError, match="disabled") as caught:
                    agent.execute(command)
                assert caught.value.error_class == "CommandNotFound"
    finally:
        guest.run(["/bin/sh", "-ec", f"rm -r {folder}; {apply}"])


def test_installed_again_it_is_as_before(guest: Guest) -> None:
    guest.write_file(CONFIG, "[general]\nblock-rpcs=guest-get-time\n")
    before = files(guest)
    apt(guest, "install", "--reinstall", PACKAGE)
    wait_until_active(guest)
    assert files(guest) == before
    with guest.connect() as agent:
        assert refused(agent, "guest-get-time")
    guest.write_file(CONFIG, "[general]\n")


def test_an_upgrade_keeps_what_is_frozen_and_can_thaw_it(guest: Guest) -> None:
    wait_until_active(guest)
    with data_filesystem(guest) as place:
        with guest.connect() as agent:
            assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=[place]) == 1
        pid = show(guest, "MainPID")
        apt(guest, "install", NEWER_PACKAGE)
        wait_until_active(guest)
        shown = ["dpkg-query", "--show", "--showformat=${Version}", "qga"]
        assert guest.run(shown).stdout == NEWER_VERSION
        assert show(guest, "MainPID") != pid
        assert is_frozen(guest, place)
        refuse_removal(guest)
        with guest.connect() as agent:
            assert agent.execute("guest-fsfreeze-status") == "frozen"
            assert agent.execute("guest-fsfreeze-thaw") == 1
        assert not is_frozen(guest, place)


def refuse_removal(guest: Guest) -> None:
    """Only the agent can thaw, so the package stays and the agent keeps running."""
    result = apt(guest, "remove", "qga", check=False)
    assert result.status != 0
    assert "guest-fsfreeze-thaw" in result.stdout + result.stderr
    wait_until_active(guest)


def test_without_the_port_it_installs_and_waits(guest: Guest) -> None:
    apt(guest, "purge", "qga")
    guest.unplug_port()
    apt(guest, "install", PACKAGE)
    assert show(guest, "ActiveState") == "inactive"
    assert "#block-rpcs=" in guest.run(["cat", CONFIG]).stdout
    guest.plug_port()
    wait_until_active(guest)
    with guest.connect() as agent:
        assert agent.execute("guest-ping") == {}


def test_the_list_of_the_drop_in_is_the_repositorys(guest: Guest) -> None:
    text = guest.run(["cat", "/usr/share/qga/hardened.conf"]).stdout
    assert text == (CHECKOUT / "systemd/hardened.conf").read_text()
