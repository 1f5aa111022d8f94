"""The exporter's unit in a real guest: what it may do as its own user.

The test guest has no Prometheus client. Instead of the exporter the unit runs a program that finds
QEMU processes and connects to them, as the exporter does, and then tries what must fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .vm import Guest

pytestmark = pytest.mark.timeout(900)

UNIT = "qgactl-exporter.service"
INSTALL = r"""
cp /opt/qga/systemd/qgactl-exporter.service /etc/systemd/system
systemd-sysusers /opt/qga/systemd/qgactl.sysusers
mkdir -p -m 0700 /srv/vm
cp /bin/sh /srv/vm/qemu-system-x86_64
systemctl daemon-reload
"""
REMOVE = r"""
systemctl stop qgactl-exporter fake-qemu || true
rm -rf /etc/systemd/system/qgactl-exporter.service* /srv/vm
userdel qgactl-exporter
systemctl daemon-reload
"""
# Root's, with a socket that only root can reach.
QEMU = r"""
import os, socket
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("/srv/vm/web.sock")
    os.chmod("/srv/vm/web.sock", 0o600)
    listener.listen()
    os.set_inheritable(listener.fileno(), True)
    os.execv("/srv/vm/qemu-system-x86_64", ["qemu-system-x86_64", "-c", "sleep 1000; :",
        "-name", "guest=web", "-chardev", "socket,id=c,path=/srv/vm/web.sock,server=on",
        "-device", "virtserialport,chardev=c,name=org.qemu.guest_agent.0"])
"""
PROBE = r"""
import json, os, time
from pathlib import Path
from qga.client.addresses import transport_opener
from qga.client.hosts.discovery import find_guests
from qga.client.hosts.trust import LeftOut

def outcome(call):
    try:
        call()
    except OSError as error:
        return type(error).__name__ + str(error.errno)
    return "done"

left_out = LeftOut()
(web,) = find_guests(left_out)
transport_opener(web, 1 << 20)(time.monotonic() + 30).close()
status = Path("/proc/self/status").read_text().split("\n")
group = Path("/sys/fs/cgroup" + Path("/proc/self/cgroup").read_text().strip().partition("::")[2])
print(json.dumps({
    "found": [web.name, web.process], "left out": left_out.lines(),
    "uid": os.getuid(), "capabilities": [line for line in status if line.startswith("Cap")],
    "memory": (group / "memory.max").read_text(),
    "memory of others": outcome(lambda: open(f"/proc/{web.process}/mem", "r+b")),
    "files": outcome(lambda: open("/etc/hostname", "a")),
    "passwords": Path("/etc/shadow").read_text(),
    "root": outcome(lambda: os.setuid(0)),
    "owners": outcome(lambda: os.chown("/srv/vm/web.sock", 0, 0)),
}))
"""
CAPABILITIES = 1 << 1 | 1 << 19  # DAC_OVERRIDE, SYS_PTRACE


@pytest.fixture(scope="module")
def seen(guest: Guest) -> Iterator[dict[str, Any]]:
    """The output of the program."""
    drop_in = f"/etc/systemd/system/{UNIT}.d/10-probe.conf"
    start = "/usr/bin/python3 -B /srv/vm/probe.py"
    lines = ["[Service]", "Type=oneshot", "Restart=no", f"ExecStart=\nExecStart={start}"]
    lines += ["Environment=PYTHONPATH=/opt/qga", "StandardOutput=file:/srv/vm/seen.json"]
    lines += ["StandardError=journal"]
    try:
        guest.run(["/bin/sh", "-ec", INSTALL])
        guest.write_file("/srv/vm/probe.py", PROBE)
        guest.write_file("/srv/vm/qemu.py", QEMU)
        guest.write_file(drop_in, "\n".join(lines))
        guest.run(["systemctl", "daemon-reload"])
        guest.run(["systemd-run", "--unit=fake-qemu", "/usr/bin/python3", "/srv/vm/qemu.py"])
        wait = "until [ -S /srv/vm/web.sock ]; do sleep .1; done"
        guest.run(["/bin/sh", "-ec", wait])
        done = guest.run(["systemctl", "start", UNIT], check=False, timeout=120)
        journal = guest.run(["journalctl", "--quiet", "--no-pager", f"--unit={UNIT}"]).stdout
        assert done.status == 0, journal
        yield json.loads(guest.run(["cat", "/srv/vm/seen.json"]).stdout)
    finally:
        guest.run(["/bin/sh", "-ec", REMOVE])


def test_it_finds_and_reaches_the_guests_of_root(guest: Guest, seen: dict[str, Any]) -> None:
    shown = guest.run(["systemctl", "show", "--property=MainPID", "--value", "fake-qemu"])
    assert seen["found"] == ["web", int(shown.stdout)]
    assert seen["left out"] == []


def test_it_has_a_user_two_capabilities_and_a_limit(seen: dict[str, Any]) -> None:
    assert 0 < seen["uid"] < 1000
    sets = {name: int(value, 16) for name, value in map(str.split, seen["capabilities"])}
    assert set(sets.values()) == {CAPABILITIES}
    assert int(seen["memory"]) == 512 * 1024 * 1024


@pytest.mark.parametrize("what", ["memory of others", "files", "root", "owners"])
def test_what_it_may_not_do(seen: dict[str, Any], what: str) -> None:
    assert seen[what] in {"PermissionError1", "PermissionError13", "OSError30"}


def test_it_sees_no_passwords(guest: Guest, seen: dict[str, Any]) -> None:
    assert seen["passwords"] == ""
    assert "root:" in guest.run(["cat", "/etc/shadow"]).stdout
