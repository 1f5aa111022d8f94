"""Where the agent's replies differ from the original's in the same guest, and why.

The tests assert the list: all other members are equal, and the listed members differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ABSENT = None
"""In place of a value: that agent's reply has no such member."""


class Difference(NamedTuple):
    """The members of a command's reply whose path matches the pattern.

    path: a regular expression. Paths contain the names of list elements.
    ours: the values that our reply may have, or their type.
    """

    command: str
    path: str
    reason: str
    ours: tuple[Any, ...] | type


MOUNTED_TWICE = "/run/twice"
"""Told by the original also as a mount of its own, by guest-get-fsinfo and by guest-fstrim: since
QEMU 10.0 a filesystem is told, and trimmed, once."""

IN_DISKS = r"/dev/sd\w/address"
IN_FSINFO = r"/mnt/\w+/disk/\d"

DIFFERENCES = [
    Difference(
        "guest-get-memory-blocks",
        "/0/can-offline",
        "The first block has holes, and the kernel never takes it offline (valid_zones is none).",
        (False,),
    ),
    Difference(
        "guest-get-fsinfo",
        r".*/total-bytes-privileged",
        "New in QEMU 9.1.",
        int,
    ),
    Difference(
        "guest-get-fsinfo",
        rf"{MOUNTED_TWICE}/.*",
        "Since QEMU 10.0 a filesystem is listed once, however often it is mounted.",
        (ABSENT,),
    ),
    Difference(
        "guest-network-get-interfaces",
        "/dummy/statistics/.*",
        "An interface without an address, such as the port of a bridge, counts as well.",
        int,
    ),
    *(
        difference
        for command, where in (
            ("guest-get-disks", IN_DISKS),
            ("guest-get-fsinfo", IN_FSINFO),
        )
        for difference in (
            Difference(
                command,
                f"{where}/target",
                "libvirt finds a virtio-scsi disk by its target, which the original leaves 0.",
                (2, 5),
            ),
            Difference(command, f"{where}/bus-type", "New in QEMU 8.1: USB disks.", ("usb",)),
            Difference(
                command,
                f"{where}/pci-controller/(domain|bus|slot|function)",
                "As above: the address of a USB disk's host controller.",
                (0, 0x14),
            ),
        )
    ),
]

BEFORE_9_1 = [
    Difference("guest-get-fsinfo", r".*/total-bytes-privileged", "New in QEMU 9.1.", int),
]
IN_ANY_GUEST = [
    Difference(
        "guest-network-get-interfaces",
        r"/\w+/statistics/.*",
        "An interface without an address, as all are but lo in these guests, counts as well.",
        int,
    ),
    Difference(
        "guest-network-get-route",
        r".*/(metric|flags)",
        "The kernel's numbers are unsigned; the original reports 4294967295 as -1.",
        int,
    ),
]
"""What differs in a guest without special hardware, from every version."""

NEW_COMMANDS = {"guest-network-get-route", "guest-get-load"}
"""Since QEMU 9.1 and 10.0: the original knows nothing of them."""

NO_PASSWORD = "child process has failed to set user password"
"""Behind this text ours has what chpasswd(8) has said of it, as QEMU has since 9.1."""

NOT_OPENED = r'open\(\\"([^"]*)\\"\)'
"""In an error of the original. Since QEMU 11.0 it is worded as ours."""


def allows(difference: Difference, value: Any) -> bool:
    """Return whether the difference permits this value in our reply."""
    if isinstance(difference.ours, type):
        return type(value) is difference.ours
    return value in difference.ours
