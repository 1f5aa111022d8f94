"""Block devices and their place in the machine, from sysfs. No device is opened here."""

import os
import re
from typing import Literal, Optional

from qga import NotRequired
from qga.records import TypedDict

from ._sysfs import read_text, read_word

SYS_BLOCK = "/sys/class/block"

GuestDiskBusType = Literal[
    "ide",
    "fdc",
    "scsi",
    "virtio",
    "xen",
    "usb",
    "uml",
    "sata",
    "sd",
    "unknown",
    "ieee1394",
    "ssa",
    "fibre",
    "raid",
    "iscsi",
    "sas",
    "mmc",
    "virtual",
    "file-backed-virtual",
    "nvme",
]


class GuestPCIAddress(TypedDict):
    domain: int
    bus: int
    slot: int
    function: int


class GuestCCWAddress(TypedDict):
    cssid: int
    ssid: int
    subchno: int
    devno: int


GuestDiskAddress = TypedDict(
    "GuestDiskAddress",
    {
        "pci-controller": GuestPCIAddress,
        "bus-type": GuestDiskBusType,
        "bus": int,
        "target": int,
        "unit": int,
        "serial": NotRequired[str],
        "dev": NotRequired[str],
        "ccw-address": NotRequired[GuestCCWAddress],
    },
)

_PCI = re.compile(r"/([0-9a-f]{4,}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])(?=/)")
_CCW = re.compile(
    r"/css([0-9a-f]+)/[0-9a-f]+\.([0-9a-f])\.([0-9a-f]{4})/[0-9a-f.]+\.([0-9a-f]{4})/"
)
_SCSI = re.compile(r"/(host[0-9]+)/(?:.+/)?target[0-9:]+/[0-9]+:([0-9]+):([0-9]+):([0-9]+)/")
_ATA = re.compile(r"^(.*)/ata([0-9]+)/")

# The first of these that the path of a device contains determines its bus.
_BUSES: list[tuple[str, GuestDiskBusType]] = [
    ("/usb", "usb"),
    ("/nvme", "nvme"),
    ("/mmc", "mmc"),
    ("/vbd-", "xen"),
    ("/host", "scsi"),
    ("/virtio", "virtio"),
]

_UDEV_SERIAL = "E:ID_SERIAL="

_NO_PCI: GuestPCIAddress = {"domain": -1, "bus": -1, "slot": -1, "function": -1}


def device_name(device: tuple[int, int]) -> Optional[str]:
    """The kernel's name of a block device, such as vda1, or None if it does not exist."""
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{device[0]}:{device[1]}"))
    except OSError:
        return None


def sys_path(name: str) -> str:
    """The directory of a device in /sys/devices, which shows its place in the machine."""
    return "/sys/" + os.readlink(f"{SYS_BLOCK}/{name}").lstrip("./")  # ../../devices/…


def dev_path(name: str) -> str:
    """The device file. sysfs has `!` in place of `/`."""
    return "/dev/" + name.replace("!", "/")


def is_partition(name: str) -> bool:
    return os.access(f"{SYS_BLOCK}/{name}/partition", os.F_OK)


def is_virtual(name: str) -> bool:
    """Whether it is made by software: device mapper, md, loop, zram.

    The kernel lists an NVMe disk with several paths under virtual/, but not under virtual/block.
    """
    return sys_path(name).startswith("/sys/devices/virtual/block/")


def is_hidden(name: str) -> bool:
    """Whether it has no device file, such as one of several paths to an NVMe disk."""
    return not os.access(f"{SYS_BLOCK}/{name}/dev", os.F_OK)


def parent(partition: str) -> str:
    """The disk that contains a partition."""
    return os.path.basename(os.path.dirname(sys_path(partition)))


def made_of(name: str) -> list[str]:
    """The devices directly below: a partition's disk, or the members of a volume or an array."""
    return [parent(name)] if is_partition(name) else members(name)


def members(name: str) -> list[str]:
    """The members of a volume or an array, in the reverse order of sysfs, as in QEMU's agent."""
    try:
        return os.listdir(f"{SYS_BLOCK}/{name}/slaves")[::-1]
    except OSError:
        return []


def disks_behind(name: str) -> list[str]:
    """The disks, or their partitions, that store the data of a device."""
    if not is_virtual(name):
        return [name]
    volume = parent(name) if is_partition(name) else name
    return [disk for slave in made_of(volume) for disk in disks_behind(slave)]


def addresses_behind(name: str) -> list[GuestDiskAddress]:
    """The addresses of these disks; empty if one of them is unplugged meanwhile."""
    try:
        return [disk_address(disk) for disk in disks_behind(name)]
    except OSError:
        return []


def disk_address(name: str) -> GuestDiskAddress:
    """The address of a device's disk, as the host knows it."""
    path = sys_path(name)
    if is_partition(name):
        path = os.path.dirname(path)
    bus_type, bus, target, unit = _position(path)
    address: GuestDiskAddress = {
        "pci-controller": _pci_controller(path),
        "bus-type": bus_type,
        "bus": bus,
        "target": target,
        "unit": unit,
        "dev": dev_path(name),
    }
    serial = _serial(path)
    if serial:
        address["serial"] = serial
    ccw = _CCW.search(path)
    if ccw:
        cssid, ssid, subchno, devno = (int(digits, 16) for digits in ccw.groups())
        address["ccw-address"] = {"cssid": cssid, "ssid": ssid, "subchno": subchno, "devno": devno}
    return address


def _position(path: str) -> tuple[GuestDiskBusType, int, int, int]:
    """Bus type, bus, target and unit, as in libvirt's drive addresses."""
    bus, target, unit = _scsi_position(path)
    ata = _ATA.search(path)
    if ata:
        port = int(ata[2]) - _first_ata_port(ata[1])
        is_sata = _driver(ata[1]).startswith(("ahci", "sata_"))
        return ("sata", 0, 0, port) if is_sata else ("ide", port, 0, target)
    for mark, bus_type in _BUSES:
        if mark in path:
            return (bus_type, bus, target, unit) if bus_type == "scsi" else (bus_type, 0, 0, 0)
    return "unknown", 0, 0, 0


def _scsi_position(path: str) -> tuple[int, int, int]:
    """Channel, target and logical unit; 0 if the disk has none."""
    scsi = _SCSI.search(path)
    if not scsi:
        return 0, 0, 0
    channel, target, lun = (int(number) for number in scsi.groups()[1:])
    if os.path.exists(f"/sys/class/spi_host/{scsi[1]}"):
        return channel, 0, target  # on a parallel bus the unit is the id
    if lun & 0xC000 == 0x4000:  # SAM-4, flat space addressing: units above 255
        lun &= 0x3FFF
    return channel, target, lun


def _first_ata_port(controller: str) -> int:
    ports = (re.fullmatch(r"ata([0-9]+)", name) for name in os.listdir(controller))
    return min(int(port[1]) for port in ports if port)


def _driver(device: str) -> str:
    try:
        return os.path.basename(os.readlink(f"{device}/driver"))
    except OSError:
        return ""


def _pci_controller(path: str) -> GuestPCIAddress:
    """The last PCI device on the path to the disk; -1 in all members if there is none."""
    found = _PCI.findall(path)
    if not found:
        return _NO_PCI
    domain, bus, slot, function = (int(digits, 16) for digits in found[-1])
    return {"domain": domain, "bus": bus, "slot": slot, "function": function}


def _serial(path: str) -> Optional[str]:
    """ID_SERIAL, as udev recorded it."""
    try:
        number = read_word(f"{path}/dev")
        lines = read_text(f"/run/udev/data/b{number}").split("\n")
    except OSError:
        return None
    found = (line[len(_UDEV_SERIAL) :] for line in lines if line.startswith(_UDEV_SERIAL))
    return next(found, None)
