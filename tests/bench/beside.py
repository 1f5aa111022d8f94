"""Agents in the test guest besides those that it always has.

QEMU's newest, and ours with pybase64, come on a disk of their own and have a port each. Ours once
more listens on vsock.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.bench import agents
from tests.guest.building import make_ext4
from tests.guest.image import install
from tests.guest.service import PROGRAM
from tests.guest.vm import SPARE_PORT, Port
from tests.guest.vsock import VsockGuest

NEWEST_PORT = SPARE_PORT
SIMD_PORT = Port("channel3", 6, "org.qemu.guest_agent.simd", "charchannel3")

VSOCK_PORT = 1234

NEWEST_UNIT, SIMD_UNIT, VSOCK_UNIT = (
    f"bench-{what}.service" for what in ("newest", "simd", "vsock")
)

MOUNTED = Path("/opt/bench")
"""Where the disk is in the guest."""

SIZE = "96M"


def hardware(folder: Path) -> list[str]:
    """QEMU's arguments for the disk and the ports."""
    path = folder / "bench.ext4"
    with tempfile.TemporaryDirectory(prefix="qga-bench-disk-") as name:
        fill(Path(name))
        make_ext4(Path(name), path, label="bench", size=SIZE)
    argv = ["-drive", f"if=none,id=bench,file={path},format=raw,readonly=on"]
    argv += ["-device", "virtio-blk-pci,drive=bench"]
    argv += ["-chardev"]
    argv += [f"socket,id={SIMD_PORT.chardev},path={folder / SIMD_PORT.chardev},server=on,wait=off"]
    for port in (NEWEST_PORT, SIMD_PORT):
        place = f"bus=virtio-serial0.0,nr={port.nr},chardev={port.chardev}"
        argv += ["-device", f"virtserialport,{place},id={port.id},name={port.name}"]
    return argv


def fill(tree: Path) -> None:
    shutil.copytree(agents.original_root(agents.NEWEST), tree / "newest", symlinks=True)
    (tree / "simd").mkdir()
    install(tree / "simd", str(MOUNTED / "simd"))
    agents.add_pybase64(tree / "simd", "/usr/bin/python3")
    tree.chmod(0o755)


def start(guest: VsockGuest) -> None:
    """Start them, through the original agent of the guest."""
    newest = agents.original_argv(agents.original_root(agents.NEWEST), MOUNTED / "newest")
    guest.run(["/bin/sh", "-ec", f"mkdir -p {MOUNTED}; mount -L bench {MOUNTED}"])
    for unit, port, argv in (
        (NEWEST_UNIT, NEWEST_PORT, newest),
        (SIMD_UNIT, SIMD_PORT, (str(MOUNTED / "simd/qemu-ga"),)),
    ):
        start_unit(guest, unit, *argv, f"--path=/dev/virtio-ports/{port.name}")
        guest.wait_port(port)
    start_unit(guest, VSOCK_UNIT, PROGRAM, "--method=vsock-listen", f"--path=-1:{VSOCK_PORT}")
    guest.dial_agent(VSOCK_PORT).close()


def start_unit(guest: VsockGuest, unit: str, *argv: str) -> None:
    state = f"/run/{unit}"
    guest.run(["mkdir", "-p", state])
    guest.run(["systemd-run", f"--unit={unit}", *argv, f"--statedir={state}"])
