"""The disks of the test guest: a Debian root that is built once, and the code under test.

The root takes a minute and is therefore cached, under a name made from everything that goes into
it: an image is never changed, only replaced by one of another name.  The code under test changes
with every run and has a small disk of its own, made anew in a second.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
CACHE = CHECKOUT / ".cache" / "guest"

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
    "dbus",
    "fdisk",
    "iproute2",
    "kmod",
    "linux-image-amd64",
    "libpam-systemd",
    "lvm2",
    "mdadm",
    "python3",
    "python3-psutil",
    "python3-serial",
    "python3-systemd",
    "qemu-guest-agent",
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
"""In spite of that: a wireless interface without hardware."""
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
    "serial-getty@ttyS0.service",
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
ENABLED_UNITS = ("guest-network.service", "qga-test.service")
# Modules that the kernel needs to mount its root; their own needs are found by modprobe.
ROOT_MODULES = ("virtio_pci", "virtio_blk", "ext4")
ROOT_SIZE = "1G"

PACKAGED = "/usr/share/qga"
"""Where a package has our code, and its launcher looks for it."""


class RootImage(NamedTuple):
    """What QEMU boots: an ext4 disk without a boot loader, its kernel and initial ramdisk."""

    disk: Path
    kernel: Path
    initrd: Path


class CannotBuildError(Exception):
    """The image cannot be built here; the text says what is missing."""


def root_image() -> RootImage:
    """The root image of the present recipe, built if it is not in the cache."""
    folder = CACHE / recipe_key()
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be building it
            if not folder.exists():
                build_root_image(folder)
    return RootImage(folder / "root.ext4", folder / "vmlinuz", folder / "initrd")


def recipe_key() -> str:
    """A name for the recipe that changes whenever anything that goes into the image does."""
    digest = hashlib.sha256()
    for part in (
        SUITE,
        PACKAGES,
        EXCLUDED,
        INCLUDED,
        MASKED_UNITS,
        ENABLED_UNITS,
        ROOT_MODULES,
        ROOT_SIZE,
    ):
        digest.update(repr(part).encode())
    for file in [HERE / "initramfs-init", *sorted((HERE / "rootfs").rglob("*"))]:
        if file.is_file():
            digest.update(f"\0{file.relative_to(HERE)}\0".encode() + file.read_bytes())
    return f"{SUITE}-{digest.hexdigest()[:16]}"


def build_root_image(folder: Path) -> None:
    """Build the root image into `folder`, which appears only when it is complete."""
    require_tools("mmdebstrap", "mke2fs")
    if os.geteuid() != 0:
        raise CannotBuildError("building the guest's image needs root (mmdebstrap, mke2fs -d)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as name:
        work = Path(name)
        root = work / "root"
        result = work / "result"
        result.mkdir()
        progress("building the guest's root with mmdebstrap (about a minute, once)")
        bootstrap(root)
        configure(root)
        progress("making its initial ramdisk and its disk")
        pack_initrd(root, result / "initrd")
        shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), result / "vmlinuz")
        shutil.rmtree(root / "boot")
        make_ext4(root, result / "root.ext4", label="guest-root", size=ROOT_SIZE)
        result.rename(folder)
    remove_others(folder)
    progress(f"the guest's image is ready: {folder}")


def bootstrap(root: Path) -> None:
    """Unpack and configure Debian into the folder `root`."""
    arguments = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    arguments += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    arguments += [f"--dpkgopt=path-include={pattern}" for pattern in INCLUDED]
    # A small one is made below; the kernel's package insists on making its own.
    arguments += [
        '--essential-hook=mkdir -p "$1"/etc/initramfs-tools/conf.d',
        '--essential-hook=echo MODULES=list >"$1"/etc/initramfs-tools/conf.d/small',
    ]
    run([*arguments, SUITE, str(root)])


def configure(root: Path) -> None:
    """Lay our files into the root, mask what slows the boot, enable what the tests need."""
    shutil.copytree(HERE / "rootfs", root, dirs_exist_ok=True)
    (root / "opt/qga").mkdir(parents=True)
    # A fixed one: without it the first boot is a "first boot" and sets every unit's preset.
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    system = root / "etc/systemd/system"
    wanted = system / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    for unit in MASKED_UNITS:
        link(system / unit, "/dev/null")
    for unit in ENABLED_UNITS:
        link(wanted / unit, f"../{unit}")
    link(system / "default.target", "/lib/systemd/system/multi-user.target")


def link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def pack_initrd(root: Path, initrd: Path) -> None:
    """Make the initial ramdisk: busybox, the modules for the root disk, and a short init."""
    version = next((root / "lib/modules").iterdir()).name
    tree = root / "tmp/initrd"
    for folder in ("bin", "dev", "modules", "root"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin")
    shutil.copy(HERE / "initramfs-init", tree / "init")
    (tree / "init").chmod(0o755)
    modules = module_files(root, version)
    for module in modules:
        shutil.copy(root / module.lstrip("/"), tree / "modules")
    (tree / "modules/order").write_text("".join(f"{Path(m).name}\n" for m in modules))
    run_inside(root, "cd /tmp/initrd && find . | cpio --quiet -o -H newc >/tmp/initrd.cpio")
    shutil.move(root / "tmp/initrd.cpio", initrd)
    shutil.rmtree(tree)


def initrd_with(script: str, initrd: Path, copy: Path) -> None:
    """Copy an initial ramdisk; the copy's init runs a shell script in the root and then leaves."""
    init = (HERE / "initramfs-init").read_text()
    before, leave, after = init.rpartition("exec ")
    new = f"{before}cd /root\n{script}\n{leave}{after}".encode()
    # The kernel unpacks one archive after the other: the later file takes the earlier's place.
    archive = cpio_member("init", new) + cpio_member("TRAILER!!!", b"")
    copy.write_bytes(padded(initrd.read_bytes()) + archive)


def cpio_member(name: str, content: bytes) -> bytes:
    """An executable file in an archive of the format `newc`, as the kernel unpacks it."""
    mode, links, name_size = 0o100755, 1, len(name) + 1
    fields = (0, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, name_size, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return padded(head + name.encode() + b"\0") + padded(content)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def module_files(root: Path, version: str) -> list[str]:
    """Paths in the guest of the modules that its root disk needs, in the order to load them."""
    command = f"modprobe --set-version {version} --show-depends --all {' '.join(ROOT_MODULES)}"
    lines = run_inside(root, command).splitlines()
    files = [line.split()[1] for line in lines if line.startswith("insmod ")]
    return list(dict.fromkeys(files))


def code_image(disk: Path) -> None:
    """Make the disk of the code under test: the package, a launcher, and what systemd reads."""
    require_tools("mke2fs")
    with tempfile.TemporaryDirectory(prefix="qga-code-") as name:
        tree = Path(name)
        install(tree, "/opt/qga")
        shutil.copytree(CHECKOUT / "systemd", tree / "systemd")
        tree.chmod(0o755)
        make_ext4(tree, disk, label="qga", size="16M")


def install(tree: Path, place: str, python: str = "/usr/bin/python3") -> None:
    """Put the agent into `tree` as a package does, compiled, to be run from the folder `place`."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "qga", tree / "qga", ignore=ignore)
    shutil.copytree(CHECKOUT / "commands", tree / "qga/commands", ignore=ignore)
    run([python, "-m", "compileall", "-q", "-s", str(tree), "-p", place, str(tree / "qga")])
    launcher = tree / "qemu-ga"
    launcher.write_text((CHECKOUT / "packaging/qemu-ga").read_text().replace(PACKAGED, place))
    launcher.chmod(0o755)


def make_ext4(tree: Path, disk: Path, *, label: str, size: str) -> None:
    options = ["-q", "-F", "-t", "ext4", "-L", label, "-E", "root_owner=0:0", "-d", str(tree)]
    run(["mke2fs", *options, str(disk), size])


def remove_others(folder: Path) -> None:
    """Remove the images of earlier recipes; a guest that runs on one keeps its open file."""
    for other in folder.parent.glob(f"{SUITE}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def require_tools(*names: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if missing:
        packages = "mmdebstrap, e2fsprogs, qemu-system-x86, util-linux"
        raise CannotBuildError(f"{', '.join(missing)}: not installed (Debian's {packages})")


def run_inside(root: Path, command: str) -> str:
    return run(["chroot", str(root), "/bin/sh", "-ec", command])


def run(argv: list[str]) -> str:
    """Run a program; its standard output. Its complaints are shown when it fails."""
    started = time.monotonic()
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        seconds = time.monotonic() - started
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise CannotBuildError(f"{argv[0]} failed after {seconds:.0f} s:\n{tail}")
    return done.stdout


def progress(text: str) -> None:
    print(f"guest: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(root_image().disk)
