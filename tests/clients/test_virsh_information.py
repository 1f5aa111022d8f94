"""What libvirt makes of the agent's answers, and the guest's own word for it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.guest import users
from tests.guest.service import UNIT, wait_for

from .daemon import LibvirtError
from .domain import Domain

pytestmark = pytest.mark.timeout(900)


def ask(domain: Domain, command: str, **arguments: Any) -> Any:
    """A command's result, by way of virsh qemu-agent-command."""
    request = {"execute": command, "arguments": arguments}
    told = domain.virsh("qemu-agent-command", "--timeout", "60", json.dumps(request))
    return json.loads(told)["return"]


def rows(table: str) -> list[list[str]]:
    """The cells of a table that virsh prints, without its head."""
    return [line.split() for line in table.partition("\n---")[2].splitlines()[1:] if line]


def guestinfo(domain: Domain) -> dict[str, str]:
    lines = domain.virsh("guestinfo").strip().splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def told(domain: Domain, *argv: str) -> str:
    """What a program in the guest prints."""
    return domain.run(argv).stdout.strip()


def test_agent_command(domain: Domain) -> None:
    assert ask(domain, "guest-ping") == {}
    assert ask(domain, "guest-get-osinfo")["kernel-release"] == told(domain, "uname", "-r")


def test_refusal_is_passed_on(domain: Domain) -> None:
    with pytest.raises(LibvirtError, match="The command guest-nothing has not been found"):
        ask(domain, "guest-nothing")
    with pytest.raises(LibvirtError, match="Parameter 'path' is missing"):
        ask(domain, "guest-file-open")


def test_reply_near_the_size_that_virsh_takes(domain: Domain) -> None:
    """4 MiB, of which a quarter is base64's."""
    size = (3 << 20) - 1000
    domain.run(["/bin/sh", "-ec", f"head -c {size} /dev/urandom >/run/random"])
    handle = ask(domain, "guest-file-open", path="/run/random")
    try:
        content = base64.b64decode(
            ask(domain, "guest-file-read", handle=handle, count=size)["buf-b64"]
        )
    finally:
        ask(domain, "guest-file-close", handle=handle)
    expected = told(domain, "sha256sum", "/run/random").split()[0]
    domain.run(["rm", "/run/random"])
    assert hashlib.sha256(content).hexdigest() == expected


def test_agent_that_was_restarted_is_found_again(domain: Domain) -> None:
    domain.run(["systemctl", "stop", UNIT])
    try:
        wait_for(lambda: not domain.is_connected(), "libvirt to notice that the agent is gone")
        with pytest.raises(LibvirtError, match="agent is not connected"):
            ask(domain, "guest-ping")
    finally:
        domain.run(["systemctl", "start", UNIT])
    wait_for(domain.answers, "libvirt to notice that the agent is back")
    assert ask(domain, "guest-ping") == {}


def test_domhostname(domain: Domain) -> None:
    assert domain.virsh("domhostname", "--source", "agent").strip() == "guest"
    domain.run(["hostname", "another.example"])
    try:
        assert domain.virsh("domhostname", "--source", "agent").strip() == "another.example"
    finally:
        domain.run(["hostname", "guest"])


def test_domfsinfo(domain: Domain) -> None:
    """In the order of their mounting, each with libvirt's name of its disk."""
    command = ["findmnt", "--noheadings", "--raw", "--types=ext4", "--output=TARGET,SOURCE,FSTYPE"]
    mounted = [line.split() for line in told(domain, *command).splitlines()]
    assert len(mounted) == 3
    target = {"/dev/vda": "vda", "/dev/vdb": "vdb", "/dev/sda": "sdc"}
    assert rows(domain.virsh("domfsinfo")) == [
        [place, device.rpartition("/")[2], kind, target[device]] for place, device, kind in mounted
    ]


def test_domifaddr(domain: Domain) -> None:
    shown = domain.virsh("domifaddr", "--source", "agent", "--full")
    expected = [
        [link["ifname"], link["address"], family, f"{address['local']}/{address['prefixlen']}"]
        for link in json.loads(told(domain, "ip", "-json", "address"))
        for address in link["addr_info"]
        for family in ["ipv6" if address["family"] == "inet6" else "ipv4"]
    ]
    assert ["eth0", "52:54:00:12:34:56", "ipv4", "10.0.2.15/24"] in expected
    assert sorted(rows(shown)) == sorted(expected)


def test_guestinfo(domain: Domain) -> None:
    with users.logged_in(domain):
        info = guestinfo(domain)
    assert info["user.count"] == "1"
    assert info["user.0.name"] == "root"
    assert info["hostname"] == "guest"
    assert info["os.id"] == "debian"
    assert info["os.kernel-version"] == told(domain, "uname", "-v")
    assert info["os.machine"] == "x86_64"
    assert info["timezone.name"] == told(domain, "date", "+%Z")
    assert info["timezone.offset"] == "0"


def test_guestinfo_of_filesystems(domain: Domain) -> None:
    info = guestinfo(domain)
    assert info["fs.count"] == "3"
    assert info["fs.2.mountpoint"] == "/mnt/data"
    assert info["fs.2.fstype"] == "ext4"
    assert info["fs.2.disk.0.alias"] == "sdc"
    assert info["fs.2.disk.0.device"] == "/dev/sda"
    size = int(info["fs.2.total-bytes"])
    assert size == int(
        told(domain, "df", "--output=used,avail", "-B1", "/mnt/data").split()[-1]
    ) + int(info["fs.2.used-bytes"])


def test_guestinfo_of_disks(domain: Domain) -> None:
    info = guestinfo(domain)
    numbers = range(int(info["disk.count"]))
    disks = {info[f"disk.{number}.name"]: info[f"disk.{number}.alias"] for number in numbers}
    listed = told(domain, "lsblk", "--nodeps", "--noheadings", "--paths", "--output=NAME").split()
    assert disks == {"/dev/sda": "sdc", "/dev/vda": "vda", "/dev/vdb": "vdb"}
    assert sorted(disks) == sorted(listed)


def test_guestinfo_of_interfaces(domain: Domain) -> None:
    info = guestinfo(domain)
    (number,) = (key[3:-5] for key, value in info.items() if value == "eth0" and key[:3] == "if.")
    assert info[f"if.{number}.hwaddr"] == told(domain, "cat", "/sys/class/net/eth0/address")
    assert info[f"if.{number}.addr.0.addr"] == "10.0.2.15"
    assert info[f"if.{number}.addr.0.prefix"] == "24"
