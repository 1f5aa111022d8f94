"""qgactl's plain commands with a real guest: what they print, and what they change."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.guest.freezing import LOOK
from tests.guest.vm import Guest
from tests.integration.qgactl_process import ON_A_TERMINAL, QGACTL, SLOW, environment, qgactl
from tests.integration.test_qgactl_freeze import read_until
from tests.unit.ctl.test_ctl_tables import KEY

pytestmark = pytest.mark.timeout(900)


PINNED = {
    "os": """
Host name  guest
System  Debian GNU/Linux # (bookworm)
Kernel  #-#-amd#
Kernel version  ## SMP PREEMPT_DYNAMIC Debian #-# (#-#-#)
Machine  x#_#
Time zone  UTC+#:# (UTC)
""",
    "net": """
Interface  Hardware address  Addresses  Received  Sent  Errors  Dropped
─
lo  #:#:#:#:#:#  #/#  # B  # B  #  #
  ::#/#
eth#  #:#:#:#:#:#  #/#  # B  # B  #  #
""",
    "routes": """
Destination  Gateway  Interface  Metric
─
default  #  eth#  #
#/#  -  eth#  #
::#/#  -  lo  #
""",
    "disks": """
Device  Kind  Bus  Address  Serial  Made of  Read  Written
─
/dev/nvme#n#  disk  nvme  #:#:#  QEMU_NVMe_Ctrl_NVME-#_#  -  # B  # B
/dev/sd_  disk  scsi  #:#:# #:#:#  #QEMU_QEMU_HARDDISK_MIRROR-#  -  # B  # B
/dev/vda  disk  virtio  #:#:#  -  -  # B  # B
/dev/vdc  disk  virtio  #:#:#  VIRTIO-#  -  # B  # B
""",
    "fs": """
Mounted at  Device  Type  Size  Used  Free  Use
─
/opt/qga  vdb  ext#  # B  # B  # B  #%
/  vda  ext#  # B  # B  # B  #%
""",
    "trim": """
Mounted at  Trimmed  Error
─
/opt/qga  # B
/  # B
""",
    "cpu": """
CPU  User  System  I/O wait  Steal  Idle
─
  #  #%  #%  #%  #%  #%
""",
    "load": """
Load over # minute  #
Load over # minutes  #
""",
    "vcpus": """
CPU  State  Can go offline
─
  #  online  no
  #  online  yes
""",
    "users": """
User  Since  Domain
─
""",
    "time": """
Guest clock  #-#-# #:#:#+#:#
Difference  # s behind the host's
Time zone  UTC+#:# (UTC)
""",
    "status": """
thawed
""",
}
"""With # for each number, B for each unit of bytes, _ for the letter of a SCSI disk, two blanks for
more, and one ─ for a line.

The guest may have more filesystems, disks and routes than these, but its own processes and
people are only these.
"""


@pytest.fixture
def address(guest: Guest) -> str:
    return f"unix:{guest.channel_path()}"


def told(address: str, *arguments: str, stdin: str = "") -> str:
    status, out, err = qgactl(*SLOW, *arguments, address=address, stdin=stdin)
    assert (status, err) == (0, "")
    return out


def pattern(text: str) -> list[str]:
    for what, sign in (
        ("/dev/sd[a-z]", "/dev/sd_"),
        (r"\d+(\.\d+)*", "#"),
        ("[KMG]iB", "B"),
        (" {2,}", "  "),
        ("─+", "─"),
    ):
        text = re.sub(what, sign, text)
    return text.splitlines()


@pytest.mark.parametrize("command", PINNED)
def test_output(address: str, command: str) -> None:
    shown = pattern(told(address, command).replace(" ahead of ", " behind "))
    expected = PINNED[command].strip("\n").splitlines()
    assert shown[:2] == expected[:2]
    assert [line for line in expected if line not in shown] == []


def test_json_has_exact_numbers(guest: Guest, address: str) -> None:
    (root,) = (each for each in json.loads(told(address, "fs", "--json")) if each["name"] == "vda")
    blocks = guest.run(["stat", "--file-system", "--format=%b %S", "/"]).stdout.split()
    assert root["total-bytes-privileged"] == int(blocks[0]) * int(blocks[1])
    machine = json.loads(told(address, "--json", "os"))
    assert machine["os"]["kernel-release"] == guest.run(["uname", "-r"]).stdout.strip()
    assert machine["host-name"] == "guest"


def test_ping_and_info(address: str) -> None:
    assert pattern(told(address, "ping"))[0].endswith(": answer # after # ms")
    assert "guest-shutdown  enabled  no" in pattern(told(address, "info"))


def test_processors_go_off_and_on(guest: Guest, address: str) -> None:
    try:
        assert pattern(told(address, "vcpus", "--offline", "1"))[-1] == "  #  offline  yes"
        assert guest.run(["cat", "/sys/devices/system/cpu/online"]).stdout == "0\n"
    finally:
        told(address, "vcpus", "--online", "1")
    assert guest.run(["cat", "/sys/devices/system/cpu/online"]).stdout == "0-1\n"


def test_the_clock_is_set(guest: Guest, address: str) -> None:
    try:
        out = told(address, "time", "--set", "2033-05-18T03:33:20Z")
        assert out.startswith("Guest clock  2033-05-18 03:3")
        assert guest.run(["date", "+%F"]).stdout == "2033-05-18\n"
    finally:
        told(address, "time", "--set")
    assert abs(json.loads(told(address, "time", "--json"))["ahead"]) < 60


def test_a_password(guest: Guest, address: str, person: str) -> None:
    told(address, "passwd", "--stdin", "--crypted", person, stdin="$6$salt$hash\n")
    assert guest.run(["getent", "shadow", person]).stdout.split(":")[1] == "$6$salt$hash"


def test_keys(guest: Guest, address: str, person: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    path.write_text(f"{KEY.line}\n")
    out = told(address, "ssh-keys", "add", person, str(path))
    assert out.splitlines()[-1] == f"ssh-ed25519   {KEY.fingerprint}   me@home"
    assert KEY.line in guest.run(["cat", f"/home/{person}/.ssh/authorized_keys"]).stdout
    told(address, "ssh-keys", "remove", person, str(path))
    assert json.loads(told(address, "ssh-keys", "list", person, "--json")) == []


def is_frozen(guest: Guest) -> bool:
    return guest.run(["/usr/bin/python3", "-IBc", LOOK, "/"]).stdout == "/\n"


def test_freeze_and_thaw(guest: Guest, address: str) -> None:
    try:
        assert pattern(told(address, "freeze"))[0].endswith(": # filesystems frozen")
        assert told(address, "status") == "frozen\n"
        assert is_frozen(guest)
    finally:
        assert pattern(told(address, "thaw"))[0].endswith(": # filesystems thawed")
    assert not is_frozen(guest)


def test_interrupted_freeze_leaves_the_guest_thawed(guest: Guest, address: str) -> None:
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        [*ON_A_TERMINAL, *QGACTL, *SLOW, "freeze", "--", "tr", "a-z", "A-Z"],
        env=environment(address),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        os.write(leader, b"ready\n")
        read_until(leader, b"READY")
        assert is_frozen(guest)
        os.write(leader, b"\x03")
        assert process.wait(60) == 130
        assert not is_frozen(guest)
        guest.run(["/bin/sh", "-ec", "echo written >/root/file; rm /root/file"])
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        told(address, "thaw")
