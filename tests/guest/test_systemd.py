"""The unit, its udev rule, drop-in and socket, and the journal, in a real guest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from qga.service.log import MESSAGE_IDS

from . import service
from .agent_socket import AgentError, AgentSocket
from .freezing import frozen_places, thawed_after
from .image import CHECKOUT
from .installed import (
    UNIT,
    VSOCK,
    drop_in,
    installed,
    replug,
    show,
    wait_for_status,
    wait_until_another_serves,
)
from .vm import Guest
from .vsock import VsockGuest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks", "unit")]

PATH = "/dev/virtio-ports/org.qemu.guest_agent.0"
# The guest is emulated and slow: pings come every 5 s.
WATCHDOG = "[Service]\nWatchdogSec=10s\n"
WITH_ARGUMENTS = {"guest-sync", "guest-sync-delimited", "qga-watch"}
HARDENED = (CHECKOUT / "systemd/hardened.conf").read_text()
RESTARTED = f"systemctl --no-block restart {UNIT}; while sleep 1; do :; done"


@pytest.fixture(scope="module")
def unit(guest: Guest) -> Iterator[None]:
    with installed(guest):
        yield


@pytest.fixture
def agent(guest: Guest) -> Iterator[AgentSocket]:
    with guest.connect() as agent, thawed_after(agent):
        yield agent


def main_pid(guest: Guest) -> int:
    return service.main_pid(guest, UNIT)


def journal(guest: Guest, *matches: str) -> list[dict[str, Any]]:
    """The unit's journal entries with these fields, oldest first."""
    guest.run(["journalctl", "--sync"])
    argv = ["journalctl", "--quiet", "--output=json", f"--unit={UNIT}", *matches]
    return [json.loads(line) for line in guest.run(argv).stdout.splitlines()]


def signal(guest: Guest, name: str, pid: int) -> None:
    guest.run(["/bin/sh", "-c", f"kill -{name} {pid}"])


def alive(guest: Guest, pid: int) -> bool:
    return guest.run(["test", "-d", f"/proc/{pid}"], check=False).status == 0


def test_systemd_finds_no_fault_in_the_files(guest: Guest) -> None:
    units = [UNIT, f"{VSOCK}.socket", f"{VSOCK}.service"]
    result = guest.run(["systemd-analyze", "verify", "--man=no", *units])
    assert (result.stdout, result.stderr) == ("", "")


def test_it_runs_while_the_port_is_plugged_in(guest: Guest) -> None:
    pid = main_pid(guest)
    assert pid
    replug(guest)
    wait_until_another_serves(guest, pid)
    with guest.connect() as agent:
        assert agent.execute("guest-ping") == {}
    wait_for_status(guest, f"Serving {PATH}")


def test_it_is_back_after_a_kill(guest: Guest) -> None:
    pid = main_pid(guest)
    signal(guest, "KILL", pid)
    wait_until_another_serves(guest, pid)
    with guest.connect() as agent:
        assert agent.execute("guest-ping") == {}


def test_it_never_gives_up(guest: Guest) -> None:
    with drop_in(guest, "[Service]\nRestartSec=1ms\n"):
        for _ in range(6):  # systemd's own limit is 5 in 10 s
            pid = main_pid(guest)
            signal(guest, "KILL", pid)
            wait_until_another_serves(guest, pid)


def test_a_stuck_loop_is_restarted(guest: Guest) -> None:
    with drop_in(guest, WATCHDOG):
        pid = main_pid(guest)
        signal(guest, "STOP", pid)
        wait_until_another_serves(guest, pid)
        with guest.connect() as agent:
            assert agent.execute("guest-ping") == {}
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in journal(guest, f"UNIT={UNIT}"))


def wait_for_pings(guest: Guest, count: int) -> None:
    for _ in range(count):
        last = show(guest, "WatchdogTimestampMonotonic")

        def has_pinged(last: str = last) -> bool:
            return show(guest, "WatchdogTimestampMonotonic") != last

        service.wait_for(has_pinged, "a ping of the watchdog")


# Hangs before the freeze until it is let go.
HOOK = """#!/bin/sh
[ "$1" = thaw ] || read word </run/gate
"""


def test_a_hung_command_is_not_taken_for_a_stuck_loop(guest: Guest) -> None:
    guest.write_file("/run/hook", HOOK)
    guest.run(["/bin/sh", "-ec", "chmod 755 /run/hook; rm -f /run/gate; mkfifo /run/gate"])
    settings = f"{WATCHDOG}Environment=DAEMON_ARGS=-F/run/hook\n"
    with drop_in(guest, settings), guest.connect() as agent, thawed_after(agent):
        pid = main_pid(guest)
        agent.send(b'{"execute":"guest-fsfreeze-freeze"}')
        wait_for_pings(guest, 4)
        assert frozen_places(guest) == set()
        guest.run(["/bin/sh", "-ec", "echo go >/run/gate; rm /run/gate"])
        assert json.loads(agent.read_line())["return"] > 0
        assert main_pid(guest) == pid


def test_frozen_it_says_so_pings_and_is_thawed_after_any_end(guest: Guest) -> None:
    with drop_in(guest, WATCHDOG):
        for name in ("KILL", "STOP"):
            with guest.connect() as agent:
                pid = main_pid(guest)
                frozen = agent.execute("guest-fsfreeze-freeze")
                wait_for_status(guest, f"Filesystems are frozen; serving {PATH}")
            wait_for_pings(guest, 3)
            signal(guest, name, pid)
            wait_until_another_serves(guest, pid)
            wait_for_status(guest, f"Filesystems are frozen; serving {PATH}")
            with guest.connect() as agent, thawed_after(agent):
                assert agent.execute("guest-fsfreeze-status") == "frozen"
                assert "/" in frozen_places(guest)
                assert agent.execute("guest-fsfreeze-thaw") == frozen
            assert frozen_places(guest) == set()
            wait_for_status(guest, f"Serving {PATH}")


def test_a_restart_while_frozen_leaves_it_frozen_and_thawable(guest: Guest) -> None:
    with guest.connect() as agent:
        frozen = agent.execute("guest-fsfreeze-freeze")
    guest.run(["systemctl", "restart", UNIT])
    with guest.connect() as agent, thawed_after(agent):
        assert agent.execute("guest-fsfreeze-status") == "frozen"
        assert agent.execute("guest-fsfreeze-thaw") == frozen


def test_a_program_of_the_host_may_restart_the_agent(guest: Guest, agent: AgentSocket) -> None:
    """As an upgrade by guest-exec does."""
    pid = main_pid(guest)
    child = agent.execute("guest-exec", path="/bin/sh", arg=["-c", RESTARTED])["pid"]
    wait_until_another_serves(guest, pid)
    assert alive(guest, child)
    signal(guest, "KILL", child)


def test_the_agent_is_spared_when_memory_is_short_but_not_its_children(
    guest: Guest, agent: AgentSocket
) -> None:
    child = agent.execute("guest-exec", path="sleep", arg=["1000"])["pid"]
    scores = [
        guest.run(["cat", f"/proc/{pid}/oom_score_adj"]).stdout.strip()
        for pid in (main_pid(guest), child)
    ]
    signal(guest, "KILL", child)
    assert scores == ["-900", "0"]


def test_the_journal_has_who_ran_what(guest: Guest, agent: AgentSocket) -> None:
    agent.execute("guest-exec", path="/bin/true", arg=["x\ny"], env=["TOKEN=s3cret"])
    with pytest.raises(AgentError):
        agent.execute("guest-file-open", path="/none")
    with pytest.raises(AgentError):
        agent.execute("guest-nothing")
    agent.execute("guest-ping")
    ran = journal(guest, "QGA_COMMAND=guest-exec")[-1]
    assert ran["MESSAGE_ID"] == MESSAGE_IDS["command"]
    assert ran["PRIORITY"] == "6"
    assert ran["QGA_CHANNEL"] == "main"
    assert ran["QGA_RESULT"] == "success"
    assert int(ran["QGA_DURATION_USEC"]) > 0
    assert json.loads(ran["QGA_ARGUMENTS"]) == {
        "path": "/bin/true",
        "arg": ["x\ny"],
        "env": ["TOKEN=(hidden)"],
    }
    assert ran["MESSAGE"].startswith("channel main: guest-exec {")
    assert "s3cret" not in str(journal(guest))
    failed = journal(guest, "QGA_COMMAND=guest-file-open")[-1]
    assert failed["QGA_RESULT"] == "GenericError"
    assert failed["QGA_ERROR"].endswith("No such file or directory")
    refused = journal(guest, f"MESSAGE_ID={MESSAGE_IDS['refused']}")[-1]
    assert (refused["PRIORITY"], refused["QGA_COMMAND"]) == ("4", "guest-nothing")
    assert not journal(guest, "QGA_COMMAND=guest-ping")


def test_the_hardened_agent_reports_everything_and_changes_nothing(guest: Guest) -> None:
    looks = ("guest-get-fsinfo", "guest-get-disks", "guest-network-get-interfaces",
             "guest-get-users", "guest-get-vcpus", "guest-get-memory-blocks",
             "guest-get-osinfo", "guest-get-host-name", "guest-get-timezone")  # fmt: skip
    with guest.connect() as agent:
        names = {command["name"] for command in agent.execute("guest-info")["supported_commands"]}
        expected = {look: steady(agent.execute(look)) for look in looks}
    with drop_in(guest, HARDENED), guest.connect() as agent:
        listed = agent.execute("guest-info")["supported_commands"]
        enabled = {command["name"] for command in listed if command["enabled"]}
        assert all(f"{name}," in HARDENED or f",{name}" in HARDENED for name in enabled)
        assert enabled > set(looks)
        for name in sorted(enabled - WITH_ARGUMENTS):
            agent.execute(name)
        for name in sorted(names - enabled):
            with pytest.raises(AgentError, match="has been disabled"):
                agent.execute(name)
        assert {look: steady(agent.execute(look)) for look in looks} == expected
        status = guest.run(["cat", f"/proc/{main_pid(guest)}/status"]).stdout
        assert "CapEff:\t0000000000000004\n" in status  # CAP_DAC_READ_SEARCH
        assert "Seccomp:\t2\n" in status


def steady(answer: Any) -> Any:
    """A reply without values that change by themselves, and without SMART data."""
    if isinstance(answer, list):
        return [steady(item) for item in answer]
    if isinstance(answer, dict):
        passing = ("used-bytes", "statistics", "smart")
        return {key: steady(value) for key, value in answer.items() if key not in passing}
    return answer


SLOW_END = "[Service]\nExecStopPost=/bin/sleep 3\n"


def test_the_socket_starts_an_agent_on_vsock(guest: VsockGuest) -> None:
    try:
        with drop_in(guest, SLOW_END):
            guest.run(["systemctl", "start", f"{VSOCK}.socket"])
            assert show(guest, "ActiveState") == "inactive"  # one agent at a time
        guest.run(["systemctl", "start", f"{VSOCK}.socket"])
        assert show(guest, "ActiveState", f"{VSOCK}.service") == "inactive"
        with guest.dial_agent(1234) as host:
            assert host.execute("guest-ping") == {}
        assert show(guest, "ActiveState", f"{VSOCK}.service") == "active"
        assert show(guest, "StatusText", f"{VSOCK}.service") == "Serving -1:1234"
        guest.run(["systemctl", "start", UNIT])
        for unit in (f"{VSOCK}.socket", f"{VSOCK}.service"):
            assert show(guest, "ActiveState", unit) == "inactive"
        with pytest.raises(ConnectionError):
            guest.dial(1234)
    finally:
        guest.run(["systemctl", "stop", f"{VSOCK}.socket", f"{VSOCK}.service"])
        guest.run(["systemctl", "start", UNIT])
