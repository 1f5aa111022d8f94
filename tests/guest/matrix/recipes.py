"""The guests of the matrix, and the images that they boot."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.guest.building import HERE, RootImage, bootstrap, cached, key_of, run
from tests.guest.image import EXCLUDED, MASKED_UNITS, link
from tests.guest.vm import ORIGINAL_PORT

from . import foreign

MIRROR = "http://deb.debian.org/debian"  # alone: mirrors of updates may lack an architecture
HAND = "/opt/hand"
PACKAGES = (
    "busybox-static",
    "dbus",
    "iproute2",
    "kmod",
    "python3",
    "python3-psutil",
    "python3-serial",
    "python3-systemd",
    "qemu-guest-agent",
    "udev",
)
OF_INIT = {
    "systemd": ("apparmor", "libpam-systemd", "systemd", "systemd-sysv"),
    "sysvinit": ("initscripts", "insserv", "orphan-sysvinit-scripts", "sysv-rc", "sysvinit-core"),
    "openrc": ("initscripts", "openrc", "orphan-sysvinit-scripts", "sysvinit-core"),
}
RUN_HAND = f"""\
#!/bin/sh
until [ -e /dev/virtio-ports/{ORIGINAL_PORT.name} ]; do sleep 0.2; done
mkdir -p /run/hand
exec {HAND}/qemu-ga --path=/dev/virtio-ports/{ORIGINAL_PORT.name} --statedir=/run/hand
"""
HAND_UNIT = f"""\
[Unit]
StartLimitIntervalSec=0

[Service]
ExecStart={HAND}/run
Restart=always
KillMode=process
"""
HAND_LINE = f"hand:2345:respawn:{HAND}/run\n"
KEPT_UNITS = ("qemu-guest-agent.service", "systemd-logind.service")


class Recipe(NamedTuple):
    """A guest: its release, its init, and its architecture."""

    suite: str
    init: str = "systemd"
    arch: str = "amd64"

    @property
    def by_script(self) -> bool:
        """Whether an init script starts the agent."""
        return self.init != "systemd"

    def image(self) -> RootImage:
        """The image, built if it is not in the cache."""
        texts = (OF_INIT[self.init], RUN_HAND, HAND_UNIT, HAND_LINE, MASKED_UNITS, EXCLUDED)
        key = key_of(self, self.packages(), *texts, files=[HERE / "initramfs-init"])
        return cached("-".join(self), key, self.make_root)

    def packages(self) -> tuple[str, ...]:
        own = ("python3-venv",) if self.suite == "bullseye" else ()
        return (*PACKAGES, *OF_INIT[self.init], f"linux-image-{self.arch}", *own)

    def make_root(self, root: Path) -> None:
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
        if self.arch == "amd64":
            run(bootstrap(root, self.suite, self.packages(), *options))
        else:
            options += [f"--arch={self.arch}", "--skip=check/qemu"]
            command = bootstrap(root, self.suite, self.packages(), *options)
            foreign.run(self.arch, [*command, f"deb {MIRROR} {self.suite} main"])
        configure(root, self.init)


GUESTS = {
    "Debian 12": Recipe("bookworm"),
    "Debian 13": Recipe("trixie"),
    "Debian 13, sysvinit": Recipe("trixie", "sysvinit"),
    "Debian 13, OpenRC": Recipe("trixie", "openrc"),
    "Debian 13, arm64": Recipe("trixie", arch="arm64"),
    "Debian 12, s390x": Recipe("bookworm", arch="s390x"),
    "Debian sid": Recipe("sid"),
    "Debian 11": Recipe("bullseye"),
}


def configure(root: Path, init: str) -> None:
    """Install the agent that controls the guest, and remove what slows the boot."""
    hand = root / HAND[1:]
    hand.mkdir()
    shutil.copy(root / "usr/sbin/qemu-ga", hand)
    (hand / "run").write_text(RUN_HAND)
    (hand / "run").chmod(0o755)
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 0\n")
    (root / "etc/hostname").write_text("guest\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost guest\n")
    if init == "systemd":
        configure_systemd(root)
    else:
        # No getty, for there is no terminal.
        lines = (root / "etc/inittab").read_text().splitlines(keepends=True)
        kept = [line for line in lines if "getty" not in line]
        (root / "etc/inittab").write_text("".join([*kept, HAND_LINE]))


def configure_systemd(root: Path) -> None:
    # A fixed one: without it the first boot is a "first boot" and sets every unit's preset.
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    system = root / "etc/systemd/system"
    wanted = system / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    for unit in MASKED_UNITS:
        if unit not in KEPT_UNITS:
            link(system / unit, "/dev/null")
    (system / "hand.service").write_text(HAND_UNIT)
    link(wanted / "hand.service", "../hand.service")
    link(system / "default.target", "/lib/systemd/system/multi-user.target")
