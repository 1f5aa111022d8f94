"""Guests that continue from one saved state: their clock, randomness, leases and identity.

QEMU's savevm keeps memory and disk, and each loadvm is a guest that was restored from them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qga.client import CommandError, GuestAgent, GuestFrozen

from .service import UNIT, wait_for
from .vm import Guest

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

QGACTL = [sys.executable, "-c", "from qga.ctl.main import main; main()"]

SECOND = 10**9

NETWORK = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n"
# Key types that take little time in an emulated guest; a client that stays connected.
SETUP = """
rm /etc/ssh/ssh_host_rsa_key*
systemctl unmask systemd-networkd ssh
systemctl start systemd-networkd ssh
systemd-run --unit=client /usr/bin/python3 -c '
import socket, time
client = socket.create_connection(("127.0.0.1", 22))
time.sleep(1000)'
until [ -e /run/systemd/netif/leases/2 ]; do sleep 0.1; done
"""
# From then on the kernel uses one key for a minute.
RESEED = "import fcntl, os\nfcntl.ioctl(os.open('/dev/urandom', os.O_RDONLY), 0x5207)"
DRAW = """
import os
for processor in (0, 1):
    os.sched_setaffinity(0, {processor})
    for _ in range(200):
        print(os.getrandom(16).hex())
"""
IDENTITY = """
cat /etc/machine-id /etc/hostname /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id
grep 127.0 /etc/hosts
"""
SCAN = "ssh-keyscan -T 100 -t ecdsa,ed25519 localhost 2>/dev/null | cut -d ' ' -f 2- | sort"
KEY_FILES = "stat -c '%n %a %U' /etc/ssh/* | sort"

DHCP_REQUEST = b"\x35\x01\x03"


def monitor(guest: Guest, command: str) -> None:
    assert guest.qmp("human-monitor-command", command_line=command) == ""


@pytest.fixture(scope="module")
def saved() -> Iterator[Guest]:
    """A guest whose state is kept, with an address from DHCP and an sshd."""
    with Guest() as guest:
        guest.write_file("/etc/systemd/network/50-test.network", NETWORK)
        guest.run(["/bin/sh", "-ec", SETUP], timeout=300)
        guest.python(RESEED)
        guest.qmp("stop")
        monitor(guest, "savevm state")
        yield guest


def restore(guest: Guest) -> None:
    guest.qmp("stop")
    monitor(guest, "loadvm state")
    guest.qmp("cont")


@contextmanager
def restored(guest: Guest) -> Iterator[GuestAgent]:
    """A guest that continues from the state, and its agent."""
    restore(guest)
    with GuestAgent(f"unix:{guest.channel_path()}", timeout=30) as agent:
        yield agent


def qgactl(guest: Guest, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [*QGACTL, "--timeout", "60", *arguments]
    environment = {**os.environ, "QGA_CONNECT": f"unix:{guest.channel_path()}"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def shell(guest: Guest, script: str) -> list[str]:
    return guest.run(["/bin/sh", "-ec", script], timeout=300).stdout.splitlines()


def results(steps: Any) -> dict[str, str]:
    return {step.name: step.result for step in steps}


def draws(guest: Guest) -> set[str]:
    return set(guest.python(DRAW).split())


def test_guests_of_one_state_draw_equal_random_numbers_unless_resynced(saved: Guest) -> None:
    restore(saved)
    first = draws(saved)
    restore(saved)
    second = draws(saved)
    # Each processor has a chain of its own, which other programs may take a few links of.
    assert len(first) == 400
    assert len(first & second) > 350
    resynced = []
    for _ in range(2):
        with restored(saved) as agent:
            assert results(agent.resync().steps)["random"] == "done"
            resynced.append(draws(saved))
    assert len(resynced[0] | resynced[1] | first) == 1200


def guests_offset(guest: Guest) -> tuple[float, float]:
    """Bounds of the seconds by which the guest's clock is ahead."""
    before = time.time()
    there = float(guest.run(["date", "+%s.%N"]).stdout)
    return there - time.time(), there - before


def test_the_clock_is_right_within_a_second(saved: Guest) -> None:
    time.sleep(2)  # the state is older than that
    with restored(saved) as agent:
        assert guests_offset(saved)[1] < -2
        told = agent.resync()
        lowest, highest = guests_offset(saved)
        assert lowest < 1
        assert highest > -1
        assert told.ahead_before is not None
        assert told.ahead_after is not None
        assert told.ahead_before < -2
        assert abs(told.ahead_after) < 1
        assert told.steps[0].name == "clock"
        assert told.steps[0].text.endswith("s behind the host's (time of the request) and was set")
        # It is left alone the second time.
        assert agent.resync().steps[0].text.endswith("and was left as it is")


def test_the_lease_is_renewed(saved: Guest, tmp_path: Path) -> None:
    dump = tmp_path / "packets"
    with restored(saved) as agent:
        saved.qmp("object-add", qom_type="filter-dump", id="dump", netdev="net", file=str(dump))
        try:
            assert DHCP_REQUEST not in dump.read_bytes()
            step = agent.resync().steps[2]
            assert step == ("dhcp", "done", "asked to renew: eth0 (systemd-networkd)")
            wait_for(lambda: DHCP_REQUEST in dump.read_bytes(), "a DHCP request")
        finally:
            saved.qmp("object-del", id="dump")


def test_guests_of_one_state_become_two(saved: Guest) -> None:
    restore(saved)
    old, files = shell(saved, IDENTITY), shell(saved, KEY_FILES)
    served = [shell(saved, SCAN)]
    assert len(served[0]) == 2
    for name in ("web-1", "web-2"):
        restore(saved)
        options = ("--hostname", name, "--machine-id", "--ssh-host-keys")
        done = qgactl(saved, "identity", *options, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert {step["result"] for step in told["steps"]} == {"done"}
        new = shell(saved, IDENTITY)
        # The boot is the same.
        assert new[1:] == [name, name, old[3], f"127.0.0.1\tlocalhost {name}"]
        assert len(new[0]) == 32
        assert new[0] != old[0]
        assert shell(saved, KEY_FILES) == files  # their names, modes and owners
        served.append(shell(saved, SCAN))
        assert served[-1] == shell(saved, "cat /etc/ssh/*.pub | cut -d ' ' -f -2 | sort")
        assert any(text.startswith("1 ssh connection ") for text in told["remaining"])
        lease = "the DHCP client ID of eth0, until systemd-networkd is restarted"
        assert lease in told["remaining"]
        journal = saved.run(["journalctl", "--output=cat", f"--unit={UNIT}"]).stdout
        assert 'qga-set-identity {"entropy":"(hidden)",' in journal
        assert f'"hostname":"{name}"' in journal
    assert not set(served[0]) & set(served[1])
    assert not set(served[1]) & set(served[2])


def state_of(guest: Guest) -> list[str]:
    return [line for script in (IDENTITY, SCAN, KEY_FILES) for line in shell(guest, script)]


def test_what_cannot_be_changed_stays(saved: Guest) -> None:
    with restored(saved) as agent:
        before = state_of(saved)
        with pytest.raises(CommandError, match="nothing to change"):
            agent.set_identity()
        with pytest.raises(CommandError, match="'a/b' is not a host name"):
            agent.set_identity("a/b", machine_id=True)
        with pytest.raises(CommandError, match="entropy has 3 bytes"):
            agent.call("qga-resync", entropy="AAAA")
        saved.write_file("/etc/ssh/sshd_config.d/wrong.conf", "Nonsense\n")
        (step,) = agent.set_identity(ssh_host_keys=True).failed
        assert "'systemctl reload ssh.service' failed" in step.text
        saved.run(["rm", "/etc/ssh/sshd_config.d/wrong.conf"])
        agent.freeze()
        try:
            for refused in (agent.resync, lambda: agent.set_identity(machine_id=True)):
                with pytest.raises(GuestFrozen):
                    refused()
        finally:
            agent.thaw()
        saved.run(["mv", "/usr/bin/ssh-keygen", "/usr/bin/away"])
    done = qgactl(saved, "identity", "--ssh-host-keys")
    assert done.returncode == 1
    assert "ssh-keygen: No such file or directory" in done.stdout
    assert state_of(saved) == before
