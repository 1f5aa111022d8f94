"""Events reach the host as they happen, whatever it does with them, and cost nothing without."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from . import users
from .addresses import ADDRESS_REQUESTS
from .agent_socket import AgentError, AgentSocket
from .data_port import OTHER_PORT, PORT, Link, state_of_port
from .qmp import Lines
from .service import UNIT, main_pid, open_files, switches_in, wait_for, wait_until_quiet
from .vm import Guest, Port

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

PATIENCE = 60.0
EVENTS = 100_000
ATTEMPTS = 3


class Events:
    """The host's end of a watch: its reply, and the lines that come."""

    def __init__(self, agent: AgentSocket, link: Link, port: Port, **how: Any) -> None:
        self.reply = agent.execute("qga-watch", port=port.name, **how)
        self.lines = Lines(link.socket)
        first = self.next()
        assert (first["event"], first["watch"]) == ("watching", self.reply["watch"])

    def next(self, timeout: float = PATIENCE) -> dict[str, Any]:
        return dict(json.loads(self.lines.next(time.monotonic() + timeout)))

    def wait_for(self, name: str, **members: Any) -> dict[str, Any]:
        """The next event of that name with those members; others are passed over."""
        deadline = time.monotonic() + PATIENCE
        passed = []
        while time.monotonic() < deadline:
            event = self.next()
            if event["event"] == name and members.items() <= event.items():
                return event
            passed.append(event)
        raise AssertionError(f"no {name} with {members}, but {passed}")


@contextmanager
def watched(guest: Guest, agent: AgentSocket, port: Port = PORT, **how: Any) -> Iterator[Events]:
    with Link(guest, port) as link:
        yield Events(agent, link, port, **how)
    wait_for(lambda: not state_of_port(agent, port)["busy"], "the port to be free")


@pytest.fixture
def told(guest: Guest, agent: AgentSocket) -> Iterator[Events]:
    with watched(guest, agent) as events:
        assert "unavailable" not in events.reply
        yield events


def seconds_since(guest: Guest, script: str) -> float:
    """When the guest's clock was, right after a shell script had run."""
    return float(guest.run(["/bin/sh", "-ec", f"{script}; date +%s.%N"]).stdout.split()[-1])


def test_an_address_is_reported_at_once(guest: Guest, told: Events) -> None:
    link = {"interface": "lo", "address": "192.0.2.77", "prefix": 32}
    try:
        for script, name in (("add", "address-added"), ("del", "address-removed")):
            since = seconds_since(guest, f"ip address {script} 192.0.2.77/32 dev lo")
            event = told.wait_for(name, **link)
            assert event["time-ms"] / 1000 - since < 5  # the bench has the real figure
    finally:
        guest.run(["ip", "address", "del", "192.0.2.77/32", "dev", "lo"], check=False)


def test_an_address_of_ipv6_is_reported_when_it_can_be_used(guest: Guest, told: Events) -> None:
    guest.run(["/bin/sh", "-ec", "ip link add k-ev type dummy; ip link set k-ev up"])
    try:
        guest.run(["ip", "address", "add", "2001:db8::77/64", "dev", "k-ev"])
        event = told.wait_for("address-added", address="2001:db8::77", interface="k-ev")
        assert event["prefix"] == 64
    finally:
        guest.run(["ip", "link", "del", "k-ev"])
    told.wait_for("address-removed", address="2001:db8::77", interface="k-ev")


@contextmanager
def filesystem(guest: Guest) -> Iterator[str]:
    """A filesystem in a file, with something to mount it; its mount point."""
    make = "modprobe loop; truncate -s 32M /run/disk; mkfs.ext4 -q /run/disk; mkdir -p /run/here"
    guest.run(["/bin/sh", "-ec", f"{make}; mount -o loop /run/disk /run/here"])
    try:
        yield "/run/here"
    finally:
        guest.run(["/bin/sh", "-c", "umount /run/here; rm /run/disk"])


def test_filesystems_come_go_and_turn_read_only(guest: Guest, told: Events) -> None:
    with filesystem(guest) as path:
        mounted = told.wait_for("filesystem-mounted", mountpoint=path, type="ext4")
        assert mounted["read-only"] is False
        guest.run(["mount", "-o", "remount,ro", path])
        told.wait_for("filesystem-read-only", mountpoint=path)
        guest.run(["mount", "-o", "remount,rw,errors=remount-ro", path])
        told.wait_for("filesystem-writable", mountpoint=path)
        device = mounted["device"].rpartition("/")[2]
        guest.run(["/bin/sh", "-c", f"echo 1 >/sys/fs/ext4/{device}/trigger_fs_error"])
        told.wait_for("filesystem-read-only", mountpoint=path, device=mounted["device"])
    told.wait_for("filesystem-unmounted", mountpoint=path)


def test_a_filesystem_that_fills(guest: Guest, agent: AgentSocket) -> None:
    with (
        filesystem(guest) as path,
        watched(guest, agent, events=["usage"], usage_interval=10, usage_percent=80) as told,
    ):
        guest.run(["/bin/sh", "-c", f"head -c 27M /dev/zero >{path}/ballast || true"])
        event = told.wait_for("usage-above", mountpoint=path)
        assert event["used-percent"] >= 80
        guest.run(["rm", f"{path}/ballast"])
        told.wait_for("usage-below", mountpoint=path)


def test_memory_that_runs_short(guest: Guest, told: Events) -> None:
    """A program in a cgroup too small for it waits for memory, and is killed at last."""
    hog = "import time\na = bytearray(16 << 20)\nopen('/run/hog', 'w').close()\n"
    hog += "end = time.time() + 8\nwhile time.time() < end:\n  a[::4096] = bytes(len(a) // 4096)\n"
    hog += "b = bytearray(256 << 20)\n"
    guest.write_file("/root/hog.py", hog)
    limits = ["--property=MemoryHigh=14M", "--property=MemoryMax=64M", "--property=MemorySwapMax=0"]
    guest.run(["systemd-run", "--unit=hog", "--collect", *limits, "python3", "/root/hog.py"])
    try:
        event = told.wait_for("memory-pressure")
        assert event.keys() >= {"some-avg10-percent", "full-avg10-percent"}
        guest.run(["systemctl", "set-property", "--runtime", "hog", "MemoryHigh=infinity"])
        killed = told.wait_for("out-of-memory")
        assert killed["name"].startswith("python3")
    finally:
        guest.run(["systemctl", "stop", "hog"], check=False)


def test_a_program_does_not_pass_for_the_kernel(guest: Guest, told: Events) -> None:
    line = "Out of memory: Killed process 1 (systemd) total-vm:1kB"
    guest.run(["/bin/sh", "-c", f"echo '<3>{line}' >/dev/kmsg"])
    guest.run(["ip", "address", "add", "192.0.2.78/32", "dev", "lo"])
    try:
        assert told.next()["event"] == "address-added"
    finally:
        guest.run(["ip", "address", "del", "192.0.2.78/32", "dev", "lo"])


def test_users_who_log_in_and_out(guest: Guest, agent: AgentSocket) -> None:
    with users.logind(guest), watched(guest, agent, events=["session"]) as told:
        with users.logged_in(guest):
            opened = told.wait_for("session-opened", user="root")
        closed = told.wait_for("session-closed", user="root")
        assert {**opened, "event": "", "time-ms": 0} == {**closed, "event": "", "time-ms": 0}


def test_users_of_utmp_where_logind_is_not(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["/bin/sh", "-c", "rm -rf /run/systemd/sessions"])
    with watched(guest, agent, events=["session"]) as told:
        with users.logged_in(guest):
            opened = told.wait_for("session-opened", user="root")
            assert opened["terminal"].startswith("pts/")
        told.wait_for("session-closed", user="root")


@pytest.mark.usefixtures("disks")
def test_events_are_reported_while_filesystems_are_frozen(
    guest: Guest, agent: AgentSocket, told: Events
) -> None:
    agent.execute("guest-fsfreeze-freeze")
    try:
        told.wait_for("frozen")
        guest.python(
            "import ctypes, socket, struct, fcntl\n"
            "s = socket.socket()\n"
            "name = struct.pack('16sH2s4s8x', b'lo:7', 2, b'', bytes([192, 0, 2, 79]))\n"
            "fcntl.ioctl(s, 0x8916, name)"
        )
        told.wait_for("address-added", address="192.0.2.79")
    finally:
        agent.execute("guest-fsfreeze-thaw")
        guest.run(["ip", "address", "del", "192.0.2.79/24", "dev", "lo"], check=False)
    told.wait_for("thawed")


def test_an_idle_guest_does_not_wake(guest: Guest, told: Events) -> None:
    """Several attempts, because each line that the kernel logs wakes the agent."""
    assert told
    pid = main_pid(guest)
    wait_until_quiet(guest, pid)
    assert any(switches_in(guest, pid, seconds=10) == 0 for _ in range(ATTEMPTS))


# Adds and removes as many addresses, in batches that the kernel carries out without an answer.
FLOOD = (
    ADDRESS_REQUESTS
    + r"""
for number in range(int(sys.argv[1])):
    kernel.send(request(20, 0x401, number) + request(21, 0x1, number))  # RTM_NEWADDR, RTM_DELADDR
"""
)


def test_a_slow_reader_costs_a_bounded_buffer(guest: Guest, agent: AgentSocket) -> None:
    """It reads nothing while 100,000 addresses change, and learns how many it has missed."""
    counts: Counter[str] = Counter()
    with watched(guest, agent, events=["address"]) as told:
        before = memory_of(guest)
        guest.python(FLOOD, str(EVENTS // 2), timeout=300)
        assert agent.execute("guest-ping") == {}
        assert memory_of(guest) - before < 2 * 1024  # KiB
        with suppress(TimeoutError):
            while True:
                event = told.next(5)
                counts[event["event"]] += event.get("count", 1)
                counts["missed"] += len(event.get("missed", ()))
        guest.run(["ip", "address", "add", "192.0.2.80/32", "dev", "lo"])
        try:
            told.wait_for("address-added", address="192.0.2.80")
        finally:
            guest.run(["ip", "address", "del", "192.0.2.80/32", "dev", "lo"])
    # Some were lost between the kernel and the agent, which has little of the processors meanwhile,
    # or else just as many as there were are accounted for.
    assert counts["missed"] or sum(counts.values()) == EVENTS


def memory_of(guest: Guest) -> int:
    """KiB of the agent's memory that belong to nobody else."""
    text = guest.run(["cat", f"/proc/{main_pid(guest)}/smaps_rollup"]).stdout
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


def test_a_host_that_leaves_ends_its_watch(guest: Guest, agent: AgentSocket) -> None:
    def descriptors() -> int:
        return len(open_files(guest, main_pid(guest)))

    with watched(guest, agent):
        pass
    before = descriptors()
    for _ in range(3):
        with watched(guest, agent), watched(guest, agent, OTHER_PORT):
            assert descriptors() > before
            assert state_of_port(agent)["busy"]
    wait_for(lambda: descriptors() <= before, "the descriptors' end")


def test_an_agent_that_stops_says_so(guest: Guest, agent: AgentSocket) -> None:
    with Link(guest) as link:
        told = Events(agent, link, PORT)
        guest.run(["systemctl", "restart", UNIT])
        told.wait_for("agent-stopped")
    agent.sync()


def test_what_is_refused(guest: Guest, agent: AgentSocket) -> None:
    for how, reason in (
        ({"port": "org.qga.nowhere"}, "no port 'org.qga.nowhere'"),
        ({"port": PORT.name, "events": ["usage"]}, "'usage-interval' is missing"),
        ({"port": PORT.name, "events": ["rain"]}, "rain"),
    ):
        with pytest.raises(AgentError, match=reason):
            agent.execute("qga-watch", **how)
    assert not state_of_port(agent)["busy"]
