"""The disks that the agent reports, compared with lsblk(8) in the guest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .agent_socket import AgentSocket
from .freezing import unplugged_filesystem
from .vm import Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks")]

COLUMNS = "NAME,KNAME,TYPE,SERIAL,MOUNTPOINTS,FSTYPE,TRAN,HCTL"
# The agent's word for what lsblk calls the transport; SCSI and virtio have none there.
BUSES = {"ata": "ide", "sata": "sata", "usb": "usb", "nvme": "nvme"}


class Device:
    """A block device as listed by lsblk, with those directly below it."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.name: str = described["kname"]
        self.alias = described["name"].rpartition("/")[2]
        self.type: str = described["type"]
        self.serial: str = described["serial"] or ""
        self.bus = BUSES.get(described["tran"] or "")
        self.address: str = described["hctl"] or ""
        self.filesystem = described["fstype"]
        self.places = [place for place in described["mountpoints"] if place]
        self.parents: list[Device] = []

    def disks(self) -> list[str]:
        """The partitions, or disks without any, that its data ends up on."""
        if self.type == "part" or not self.parents:
            return [self.name]
        return [disk for parent in self.parents for disk in parent.disks()]


@pytest.fixture(scope="module")
def devices(guest: Guest, disks: None) -> dict[str, Device]:
    # lsblk tells what udev knows, which may have looked before the filesystem was made.
    again = ["udevadm", "trigger", "--settle", "--action=change", "--subsystem-match=block"]
    guest.run(again, timeout=300)
    shown = guest.run(["lsblk", "--json", "--paths", f"--output={COLUMNS}"]).stdout
    found: dict[str, Device] = {}
    for described in json.loads(shown)["blockdevices"]:
        collect(described, None, found)
    return found


def collect(described: dict[str, Any], parent: Device | None, found: dict[str, Device]) -> None:
    device = found.setdefault(described["kname"], Device(described))
    if parent is not None:
        device.parents.append(parent)
    for child in described.get("children", ()):
        collect(child, device, found)


def test_disks(agent: AgentSocket, devices: dict[str, Device]) -> None:
    told = {disk["name"]: disk for disk in agent.execute("guest-get-disks")}
    assert told.keys() == devices.keys()
    for name, device in devices.items():
        disk = told[name]
        assert disk["partition"] == (device.type == "part")
        assert sorted(disk["dependencies"]) == sorted(part.name for part in device.parents)
        assert disk.get("alias") == (device.alias if name.startswith("/dev/dm-") else None)
        assert ("address" in disk) == (device.type in {"disk", "rom"})
        assert ("smart" in disk) == (device.bus == "nvme")


def test_addresses(agent: AgentSocket, devices: dict[str, Device]) -> None:
    for disk in agent.execute("guest-get-disks"):
        device = devices[disk["name"]]
        if "address" not in disk:
            continue
        address = disk["address"]
        assert address["dev"] == device.name
        assert device.serial in address.get("serial", "")
        if device.bus is not None:
            assert address["bus-type"] == device.bus
        elif device.address:
            assert address["bus-type"] == "scsi"
            _, *position = map(int, device.address.split(":"))
            assert [address["bus"], address["target"], address["unit"]] == position
        else:
            assert address["bus-type"] == "virtio"


def test_where_the_host_put_them(agent: AgentSocket) -> None:
    """As in QEMU's command line: slot of the controller; bus, target and unit of the drive."""
    told = {
        disk["address"].get("serial", ""): disk["address"]
        for disk in agent.execute("guest-get-disks")
        if "address" in disk
    }
    for serial, (pci, position) in {
        "VIRTIO-1": ((1, 0x3, 0), (0, 0, 0)),
        "MIRROR-0": ((0, 0x11, 0), (0, 0, 0)),
        "MIRROR-1": ((0, 0x11, 0), (0, 2, 3)),
        "TRIMMED": ((0, 0x11, 0), (0, 5, 1)),
        "VOLUME-0": ((0, 0x12, 0), (0, 0, 1)),
        "VOLUME-1": ((0, 0x12, 0), (0, 0, 4)),
        "IDE-1": ((0, 0x1, 1), (0, 0, 1)),
        "NVME-1": ((0, 0x13, 0), (0, 0, 0)),
        "USB-1": ((0, 0x14, 0), (0, 0, 0)),
    }.items():
        (address,) = (each for name, each in told.items() if serial in name)
        controller = address["pci-controller"]
        assert (controller["bus"], controller["slot"], controller["function"]) == pci, serial
        assert (address["bus"], address["target"], address["unit"]) == position, serial


def test_filesystems(agent: AgentSocket, devices: dict[str, Device]) -> None:
    told = {each["mountpoint"]: each for each in agent.execute("guest-get-fsinfo")}
    mounted = {place: device for device in devices.values() for place in device.places}
    assert told.keys() == mounted.keys()
    for place, device in mounted.items():
        filesystem = told[place]
        assert f"/dev/{filesystem['name']}" == device.name
        assert filesystem["type"] == device.filesystem
        assert sorted(disk["dev"] for disk in filesystem["disk"]) == sorted(device.disks())
        assert filesystem["used-bytes"] <= filesystem["total-bytes"]
        assert filesystem["total-bytes"] <= filesystem["total-bytes-privileged"]


def test_a_filesystem_whose_disk_is_gone(guest: Guest, agent: AgentSocket) -> None:
    """It is still mounted, but its disk is gone from /sys."""
    assert guest.original is not None
    with unplugged_filesystem(guest):
        ours, theirs = (
            [each for each in asked.execute("guest-get-fsinfo") if each["disk"] == []]
            for asked in (agent, guest.original)
        )
    (listed,) = ours
    assert listed["mountpoint"] == "/mnt/unplugged"
    assert [(each["name"], each["mountpoint"]) for each in theirs] == [
        (listed["name"], "/mnt/unplugged")
    ]
