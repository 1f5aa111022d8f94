"""The disks of the test guest: a Debian root that is built once, and the code under test.

The root takes a minute and is therefore cached. The code under test changes with every run and has
a small disk of its own, made anew in a second.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from .building import CHECKOUT as CHECKOUT
from .building import HERE, ROOT_MODULES, ROOT_SIZE, bootstrap, cached, key_of, make_ext4
from .building import CannotBuildError as CannotBuildError
from .building import RootImage as RootImage
from .building import require_tools as require_tools
from .building import run as run

SUITE = os.environ.get("QGA_TEST_SUITE", "bookworm")
"""Which Debian the guest is: bullseye has Linux 5.10 and Python 3.9, trixie Linux 6.12."""
UNUSED_DRIVERS = (
    "bluetooth",
    "char/agp",
    "comedi",
    "gpu",
    "hid",
    "hwmon",
    "i2c",
    "iio",
    "infiniband",
    "input/joystick",
    "input/mouse",
    "input/touchscreen",
    "isdn",
    "media",
    "net/ethernet",
    "net/usb",
    "net/wireless",
    "parport",
    "platform",
    "staging",
    "target",
    "video",
    "watchdog",
)
PACKAGES = (
    "btrfs-progs",
    "busybox-static",
    "cloud-guest-utils",
    "cryptsetup-bin",
    "dbus",
    "fdisk",
    "iproute2",
    "kmod",
    "linux-image-amd64",
    "libpam-systemd",
    "lvm2",
    "mdadm",
    "openssh-server",
    "python3",
    "python3-apt",
    "python3-psutil",
    "python3-serial",
    "python3-systemd",
    "qemu-guest-agent",
    "rsync",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
    "xfsprogs",
)
# Left out of the guest: what nobody reads there, and drivers of what it does not have. Debian 13
# has /lib/modules below /usr.
EXCLUDED = (
    *(f"/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")),
    *(f"*/lib/modules/*/kernel/drivers/{folder}/*" for folder in UNUSED_DRIVERS),
    *(f"*/lib/modules/*/kernel/{folder}/*" for folder in ("arch/x86/kvm", "sound")),
)
INCLUDED = ("*/mac80211_hwsim.ko*",)
"""Not left out with the other drivers: a wireless interface without hardware."""
# What a guest that is only ever asked through its agent can do without: it boots sooner.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "blk-availability.service",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@tty1.service",
    "kmod-static-nodes.service",
    "lvm2-lvmpolld.socket",
    "lvm2-monitor.service",
    "mdcheck_continue.timer",
    "mdcheck_start.timer",
    "mdmonitor-oneshot.timer",
    "mdmonitor.service",
    "modprobe@.service",
    "qemu-guest-agent.service",
    "rsync.service",
    "serial-getty@ttyS0.service",
    "ssh.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-firstboot.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-network-generator.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-pcrphase-initrd.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
)
# Each of them is started by `systemctl daemon-reload`, too, which takes twice as long with them.
MASKED_GENERATORS = (
    "bless-boot",
    "cryptsetup",
    "debug",
    "getty",
    "gpt-auto",
    "hibernate-resume",
    "integritysetup",
    "rc-local",
    "run",
    "system-update",
    "veritysetup",
)
ENABLED_UNITS = ("guest-network.service", "qga-test.service")
PACKAGED = "/usr/share/qga"
"""Where a package has our code, and its launcher looks for it."""


def root_image() -> RootImage:
    """The root image of the present recipe, built if it is not in the cache."""
    return cached(SUITE, recipe_key(), make_root)


def recipe_key() -> str:
    masked = (*MASKED_UNITS, *MASKED_GENERATORS)
    lists = (PACKAGES, EXCLUDED, INCLUDED, masked, ENABLED_UNITS, ROOT_MODULES, ROOT_SIZE)
    files = [HERE / "initramfs-init", *sorted((HERE / "rootfs").rglob("*"))]
    return key_of(SUITE, *lists, files=files)


def make_root(root: Path) -> None:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in INCLUDED]
    run(bootstrap(root, SUITE, PACKAGES, *options))
    configure(root)


def configure(root: Path) -> None:
    """Copy our files into the root, mask units that slow the boot, enable those for tests."""
    shutil.copytree(HERE / "rootfs", root, dirs_exist_ok=True)
    (root / "opt/qga").mkdir(parents=True)
    # A fixed one: without it the first boot is a "first boot" and sets every unit's preset.
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    system = root / "etc/systemd/system"
    wanted = system / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    for unit in MASKED_UNITS:
        link(system / unit, "/dev/null")
    generators = root / "etc/systemd/system-generators"
    generators.mkdir(exist_ok=True)
    for name in MASKED_GENERATORS:
        link(generators / f"systemd-{name}-generator", "/dev/null")
    for unit in ENABLED_UNITS:
        link(wanted / unit, f"../{unit}")
    link(system / "default.target", "/lib/systemd/system/multi-user.target")


def link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def code_image(disk: Path) -> None:
    """Make the disk with the code under test: package, launcher, files for systemd, single file."""
    require_tools("mke2fs")
    with tempfile.TemporaryDirectory(prefix="qga-code-") as name:
        tree = Path(name)
        install(tree, "/opt/qga")
        shutil.copytree(CHECKOUT / "systemd", tree / "systemd")
        run([str(CHECKOUT / "packaging/build-pyz"), str(tree / "qga.pyz")])
        tree.chmod(0o755)
        make_ext4(tree, disk, label="qga", size="16M")


def install(tree: Path, place: str, python: str = "/usr/bin/python3") -> None:
    """Put the agent into `tree` as a package does, compiled, to be run from `place`."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "qga", tree / "qga", ignore=ignore)
    shutil.copytree(CHECKOUT / "commands", tree / "qga/commands", ignore=ignore)
    run([python, "-m", "compileall", "-q", "-s", str(tree), "-p", place, str(tree / "qga")])
    launcher = tree / "qemu-ga"
    launcher.write_text((CHECKOUT / "packaging/qemu-ga").read_text().replace(PACKAGED, place))
    launcher.chmod(0o755)


if __name__ == "__main__":
    print(root_image().disk)
