"""Where the agent's replies differ from the original's in the same guest.

`tests/differences.py` has the reasons. The tests assert the list: all other members are equal, and
the listed members differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ABSENT = None
"""In place of a value: that agent's reply has no such member."""


class Difference(NamedTuple):
    """The members of a command's reply whose path matches the pattern.

    path: a regular expression. Paths contain the names of list elements.
    record: the name in `tests/differences.py`.
    ours: the values that our reply may have, or their type.
    """

    command: str
    path: str
    record: str
    ours: tuple[Any, ...] | type


MOUNTED_TWICE = "/run/twice"
"""The original lists and trims this as a further mount: only since QEMU 10.0 guest-get-fsinfo and
guest-fstrim handle a filesystem once."""

IN_DISKS = r"/dev/sd\w/address"
IN_FSINFO = r"/mnt/\w+/disk/\d"

FIRST_BLOCK = Difference(
    "guest-get-memory-blocks",
    "/0/can-offline",
    "memory-that-stays",
    (False,),
)
SIZE_FOR_ROOT = Difference(
    "guest-get-fsinfo",
    r".*/total-bytes-privileged",
    "total-bytes-privileged",
    int,
)
DIFFERENCES = [
    FIRST_BLOCK,
    SIZE_FOR_ROOT,
    Difference(
        "guest-get-fsinfo",
        rf"{MOUNTED_TWICE}/.*",
        "mounted-twice",
        (ABSENT,),
    ),
    Difference(
        "guest-network-get-interfaces",
        "/dummy/statistics/.*",
        "counters-without-address",
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
                "scsi-target",
                (2, 5),
            ),
            Difference(command, f"{where}/bus-type", "usb-disks", ("usb",)),
            Difference(
                command,
                f"{where}/pci-controller/(domain|bus|slot|function)",
                "usb-disks",
                (0, 0x14),
            ),
        )
    ),
]

IN_ANY_GUEST = [
    FIRST_BLOCK,
    Difference(
        "guest-network-get-interfaces",
        r"/\w+/statistics/.*",
        "counters-without-address",
        int,
    ),
    Difference(
        "guest-network-get-route",
        r".*/(metric|flags)",
        "unsigned-route",
        int,
    ),
]
"""What differs in a guest without special hardware, from any version."""

BEFORE_9_1 = [SIZE_FOR_ROOT]

ON_ARM64 = [
    Difference(command, rf"{where}/pci-controller/\w+", "pci-below-platform", int)
    for command, where in (
        ("guest-get-disks", r"/dev/vd\w/address"),
        ("guest-get-fsinfo", r"/.*/disk/\d"),
    )
]

NEW_COMMANDS = {"guest-network-get-route", "guest-get-load"}
"""The record `new-commands`."""

NO_PASSWORD = "child process has failed to set user password"
"""The record `password-reason`: our text continues with the output of chpasswd(8)."""

NOT_OPENED = r'open\(\\"([^"]*)\\"\)'
"""The record `vcpu-error`: the text of the original before QEMU 11.0."""


def allows(difference: Difference, value: Any) -> bool:
    """Return whether the difference permits this value in our reply."""
    if isinstance(difference.ours, type):
        return type(value) is difference.ours
    return value in difference.ours
