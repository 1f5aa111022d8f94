"""The newest release of QEMU's agent, from Debian sid, for guests of any release of Debian."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.guest import building
from tests.guest.agent_socket import AgentSocket
from tests.guest.machines import AMD64, Machine
from tests.guest.vm import SPARE_PORT, Guest

SIZE = "48M"
LOADERS = {
    "amd64": "ld-linux-x86-64.so.2",
    "arm64": "ld-linux-aarch64.so.1",
    "s390x": "ld64.so.1",
}
# The loader and the libraries of the same release, for the guest's may be older.
START = f"""\
mkdir -p /opt/newest /run/newest
mount -o ro /dev/disk/by-label/newest /opt/newest
cd /opt/newest
exec setsid ./loader --library-path . ./qemu-ga --path=/dev/virtio-ports/{SPARE_PORT.name} \\
    --statedir=/run/newest </dev/null >/dev/null 2>&1
"""


def disk(folder: Path, machine: Machine = AMD64) -> list[str]:
    """QEMU's arguments for a disk with the agent on it."""
    path = folder / "newest.ext4"
    building.make_ext4(tree(machine.arch), path, label="newest", size=SIZE)
    argv = ["-drive", f"if=none,id=newest,file={path},format=raw,readonly=on"]
    return [*argv, "-device", f"virtio-blk-{machine.bus},drive=newest"]


def tree(arch: str) -> Path:
    """A folder with the agent, its libraries and their loader; made once."""
    folder = building.CACHE / f"newest-{arch}"
    with (building.CACHE / f"newest-{arch}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be making it
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=building.CACHE, prefix="building-") as work:
                unpack_into(Path(work), arch, folder)
    return folder


def unpack_into(work: Path, arch: str, folder: Path) -> None:
    root, copies = work / "root", work / "tree"
    options = ["--variant=extract", f"--arch={arch}", "--include=qemu-guest-agent"]
    building.run([*building.MMDEBSTRAP, *options, *building.LENIENT, "sid", str(root)])
    copies.mkdir()
    for file in (*root.glob("usr/lib/*-linux-gnu/*.so*"), root / "usr/sbin/qemu-ga"):
        if file.exists():  # some are links to what is not needed here
            shutil.copy(file, copies)
    [loader] = root.glob(f"usr/lib/*-linux-gnu/{LOADERS[arch]}")
    shutil.copy(loader, copies / "loader")
    copies.rename(folder)


@contextmanager
def started(guest: Guest) -> Iterator[AgentSocket]:
    """A conversation with the agent, which is started in the guest for as long."""
    assert guest.original is not None
    guest.plug_port(SPARE_PORT)
    argv = ["-ec", START]
    pid = guest.original.execute("guest-exec", path="/bin/sh", arg=argv)["pid"]
    guest.wait_port(SPARE_PORT)
    try:
        with guest.connect(SPARE_PORT) as agent:
            yield agent
    finally:
        guest.run(["/bin/sh", "-c", f"kill {pid}; umount /opt/newest"], check=False)
        guest.unplug_port(SPARE_PORT)
