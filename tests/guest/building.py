"""Disks and initial ramdisks of test guests, made from folders and kept in the cache.

The name of a cached image is a hash of everything that goes into it. So an image never changes; a
new one has another name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
CACHE = CHECKOUT / ".cache" / "guest"

ROOT_SIZE = "1G"
# Modules that the kernel needs to mount its root; their own needs are found by modprobe.
ROOT_MODULES = ("virtio_pci", "virtio_blk", "ext4")
# INITRD: a small ramdisk is made here; the kernel's package is to make none.
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "INITRD": "No"}
# Its mounts of /proc and /sys in the root end with it, also if it is killed.
MMDEBSTRAP = ("unshare", "--mount", "mmdebstrap")
# The clock of a test machine may be ahead of what the mirror has.
LENIENT = ("--aptopt=Acquire::Check-Valid-Until false",)
# What a crash leaves half done is built anew: dpkg waits for no disk here; in the guest it does.
HASTY = (
    "--dpkgopt=force-unsafe-io",
    '--customize-hook=sed -i /force-unsafe-io/d "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
)


class RootImage(NamedTuple):
    """What QEMU boots: an ext4 disk without a boot loader, its kernel and initial ramdisk."""

    disk: Path
    kernel: Path
    initrd: Path


class CannotBuildError(Exception):
    """The image cannot be built here; the text says what is missing."""


def cached(
    kind: str, key: str, make_root: Callable[[Path], None], size: str = ROOT_SIZE
) -> RootImage:
    """The image of this kind and key, built if it is not in the cache.

    make_root: makes Debian's root in a folder. size: of the disk, for mke2fs(8).
    """
    folder = CACHE / f"{kind}-{key}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be building it
            if not folder.exists():
                build(folder, make_root, size)
                remove_others(kind, folder)
    return RootImage(folder / "root.ext4", folder / "vmlinuz", folder / "initrd")


def key_of(*parts: object, files: Iterable[Path] = ()) -> str:
    """A name for a recipe, which is different if anything that goes into the image is different."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode())
    for file in files:
        if file.is_file():
            digest.update(f"\0{file.relative_to(HERE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def build(folder: Path, make_root: Callable[[Path], None], size: str) -> None:
    """Build an image into `folder`, which is created only when the image is complete."""
    require_tools("mmdebstrap", "mke2fs", "modprobe")
    if os.geteuid() != 0:
        raise CannotBuildError("building the guest's image needs root (mmdebstrap, mke2fs -d)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as name:
        work = Path(name)
        root = work / "root"
        result = work / "result"
        result.mkdir()
        progress(f"building {folder.name} with mmdebstrap (about a minute, once)")
        make_root(root)
        (result / "initrd").write_bytes(initrd(root))
        shutil.copyfile(next((root / "boot").glob("vmlinu?-*")), result / "vmlinuz")
        shutil.rmtree(root / "boot")
        make_ext4(root, result / "root.ext4", label="guest-root", size=size)
        result.rename(folder)
    progress(f"the guest's image is ready: {folder}")


def remove_others(kind: str, folder: Path) -> None:
    """Remove the images of earlier recipes. A running guest still has its image open."""
    for other in folder.parent.glob(f"{kind}-{'[0-9a-f]' * 16}"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def bootstrap(root: Path, suite: str, packages: Iterable[str], *options: str) -> list[str]:
    """The command that unpacks and configures Debian in the folder `root`."""
    options = ("--variant=minbase", f"--include={','.join(packages)}", *options, *LENIENT, *HASTY)
    return [*MMDEBSTRAP, *options, suite, str(root)]


def initrd(root: Path) -> bytes:
    """The initial ramdisk: busybox, the modules for the root disk, and a short init."""
    modules = module_files(root)
    order = "".join(f"{module.name}\n" for module in modules).encode()
    archive = b"".join(cpio_folder(name) for name in ("bin", "dev", "modules", "root"))
    archive += cpio_member("bin/busybox", (root / "bin/busybox").read_bytes())
    archive += cpio_member("init", (HERE / "initramfs-init").read_bytes())
    archive += cpio_member("modules/order", order)
    for module in modules:
        archive += cpio_member(f"modules/{module.name}", module.read_bytes())
    return archive + CPIO_END


def initrd_with(script: str, initrd: Path, copy: Path) -> None:
    """Copy an initial ramdisk; the copy's init runs a shell script in the root and then leaves."""
    init = (HERE / "initramfs-init").read_text()
    before, leave, after = init.rpartition("exec ")
    new = f"{before}cd /root\n{script}\n{leave}{after}".encode()
    # The kernel unpacks one archive after the other: the later file takes the earlier's place.
    archive = cpio_member("init", new) + CPIO_END
    copy.write_bytes(padded(initrd.read_bytes()) + archive)


def cpio_member(name: str, content: bytes, mode: int = 0o100755) -> bytes:
    """An executable file in an archive of the format `newc`, as the kernel unpacks it."""
    links, name_size = 1, len(name) + 1
    fields = (0, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, name_size, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return padded(head + name.encode() + b"\0") + padded(content)


def cpio_folder(name: str) -> bytes:
    return cpio_member(name, b"", 0o040755)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


CPIO_END = cpio_member("TRAILER!!!", b"")


def module_files(root: Path) -> list[Path]:
    """The modules that the kernel needs to mount its root, in the order to load them."""
    version = next((root / "lib/modules").iterdir()).name
    options = ["--dirname", str(root), "--set-version", version, "--show-depends", "--all"]
    lines = run(["modprobe", *options, *ROOT_MODULES]).splitlines()
    # A path may have spaces, and parameters of the module may follow.
    found = [re.match(r"insmod (/.*?\.ko(\.[a-z]+)?)( |$)", line) for line in lines]
    return list(dict.fromkeys(Path(match[1]) for match in found if match))


def make_ext4(tree: Path, disk: Path, *, label: str, size: str) -> None:
    options = ["-q", "-F", "-t", "ext4", "-L", label, "-E", "root_owner=0:0", "-d", str(tree)]
    run(["mke2fs", *options, str(disk), size])


def require_tools(*names: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if missing:
        packages = "mmdebstrap, e2fsprogs, qemu-system-x86, util-linux"
        raise CannotBuildError(f"{', '.join(missing)}: not installed (Debian's {packages})")


def run(argv: list[str]) -> str:
    """Run a program and return its standard output. Show its standard error if it fails."""
    started = time.monotonic()
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        seconds = time.monotonic() - started
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise CannotBuildError(f"{argv[0]} failed after {seconds:.0f} s:\n{tail}")
    return done.stdout


def progress(text: str) -> None:
    print(f"guest: {text}", file=sys.stderr, flush=True)
