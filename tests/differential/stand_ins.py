"""Files of a test in place of the kernel's, for one agent, in a mount namespace of its own.

So agents answer for machines that no test guest is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]

# /proc/self would be that of mount(8).
SCRIPT = """
while [ "$1" != -- ]; do
    case $2 in
        /proc/self/*) mount --rbind "$1" "/proc/$$/${2#/proc/self/}" ;;
        *) mount --rbind "$1" "$2" ;;
    esac
    shift 2
done
shift
exec "$@"
"""

# libudev, of which the originals make use, refuses any other filesystem at /sys.
LIBUDEV = "SYSTEMD_DEVICE_VERIFY_SYSFS=0"


def among(stand_ins: Mapping[str, Path], program: Sequence[str]) -> list[str]:
    """The command of a program for which other files or directories are at these paths.

    It keeps its process, so that /proc/self/ may be replaced.
    """
    if subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("needs unshare --mount")
    pairs = [word for path, source in stand_ins.items() for word in (str(source), path)]
    return [*UNSHARE, "sh", "-ec", SCRIPT, "sh", *pairs, "--", "env", LIBUDEV, *program]


class Sysfs:
    """A tree like /sys with block devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in ("block", "class/block", "dev/block", "class/spi_host", "drivers"):
            (folder / path).mkdir(parents=True)
        self.numbers: dict[str, str] = {}

    def driver(self, device: str, name: str) -> None:
        """Let a driver have a device, such as the controller of disks."""
        (self.folder / "devices" / device).mkdir(parents=True, exist_ok=True)
        (self.folder / "drivers" / name).mkdir(exist_ok=True)
        self.link(f"devices/{device}/driver", f"drivers/{name}")

    def add(self, path: str, *members: str, alias: str = "") -> None:
        """Add a disk, or a partition if its directory is in that of a disk."""
        name, number = os.path.basename(path), f"240:{1048000 + len(self.numbers)}"
        self.numbers[name] = number
        device = self.folder / "devices" / path
        device.mkdir(parents=True, exist_ok=True)
        (device / "size").write_text("8\n")
        (device / "dev").write_text(f"{number}\n")
        (device / "uevent").write_text(
            "MAJOR={}\nMINOR={}\nDEVNAME={}\n".format(*number.split(":"), name.replace("!", "/"))
        )
        links = ["class/block/" + name, "dev/block/" + number]
        if os.path.basename(os.path.dirname(path)) in self.numbers:
            (device / "partition").write_text("1\n")
        else:
            links.append("block/" + name)
            (device / "slaves").mkdir()
        for link in links:
            self.link(link, f"devices/{path}")
        self.link(f"devices/{path}/subsystem", "class/block")
        for member in members:
            target = os.path.realpath(self.folder / "class/block" / member)
            self.link(f"devices/{path}/slaves/{member}", os.path.relpath(target, self.folder))
        if alias:
            (device / "dm").mkdir()
            (device / "dm/name").write_text(f"{alias}\n")

    def link(self, path: str, target: str) -> None:
        place = self.folder / path
        place.symlink_to(os.path.relpath(self.folder / target, place.parent))

    def mounts(self, folder: Path) -> Path:
        """A file like /proc/self/mountinfo, with all of them mounted."""
        return mount_table(
            folder, [(number, f"/nowhere/{name}") for name, number in self.numbers.items()]
        )


def mount_table(
    folder: Path, mounts: Sequence[tuple[str, str | bytes]], kind: bytes = b"ext4"
) -> Path:
    """A file like /proc/self/mountinfo. Mount points and the type are written as they are."""
    table = folder / "mountinfo"
    lines = (
        b"%d 1 %s / %s rw - %s /dev/x rw\n" % (at, number.encode(), os.fsencode(place), kind)
        for at, (number, place) in enumerate(mounts, 30)
    )
    table.write_bytes(b"".join(lines))
    return table
