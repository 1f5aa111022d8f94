"""The Debian package in a guest: installation, removal, and what they leave behind.

apt installs the package from a file, using only Debian packages of the image. The tests control
the guest through the original agent. Its package is replaced by ours, so it runs from a copy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.packaging.built import debs, output

from .agent_socket import AgentSocket
from .service import wait_for
from .vm import ORIGINAL_PORT, Guest, Result

UNIT = "qemu-guest-agent.service"
PACKAGE = "/root/qga.deb"
NEWER_PACKAGE = "/root/qga-newer.deb"
NEWER_VERSION = "99.0"
DATA_DISK = "/dev/disk/by-id/virtio-DATA"

# The checkout's agent is nowhere in this guest, and the original's unit is as Debian has it.
MAKE_DEBIAN_OF_IT = r"""
systemctl disable --now --quiet qga-test.service
umount /opt/qga
sed -i '/LABEL=qga/d' /etc/fstab
rm /etc/systemd/system/qga-test.service /etc/systemd/system/qemu-guest-agent.service
mkdir -p /etc/systemd/system/qemu-ga-original.service.d
cp /usr/sbin/qemu-ga /opt/qemu-ga-original
options=$(sed -n 's/^ExecStart=[^ ]* //p' /etc/systemd/system/qemu-ga-original.service)
printf '[Service]\nExecStart=\nExecStart=/opt/qemu-ga-original %s\n' "$options" \
    >/etc/systemd/system/qemu-ga-original.service.d/place.conf
systemctl daemon-reload
"""
# What packages write down about themselves, and what the system does while it runs.
NOT_LISTED = (
    "/boot",
    "/dev",
    "/proc",
    "/root",
    "/sys",
    "/tmp",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/systemd/catalog",
    "/var/log",
    "/var/tmp",
    "/run/log",
    "/run/systemd",
    "/run/udev",
)


def data_disk(folder: Path) -> list[str]:
    """QEMU's arguments for a disk that the guest's system does not use."""
    path = folder / "data.img"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    argv = ["-drive", f"if=none,id=data,file={path},format=raw,cache=unsafe"]
    return [*argv, "-device", "virtio-blk-pci,drive=data,serial=DATA"]


def make_debian(guest: Guest) -> None:
    """Turn the test guest into one with Debian's packages and without our agent."""
    guest.qmp("set-action", reboot="reset", shutdown="pause")
    guest.forget_events()
    guest.run(["/bin/sh", "-ec", MAKE_DEBIAN_OF_IT])
    assert guest.original is not None
    restart = ["--no-block", "restart", "qemu-ga-original.service"]
    guest.original.execute("guest-exec", path="systemctl", arg=restart)
    guest.wait_port(ORIGINAL_PORT, is_open=False)
    guest.wait_until_booted()
    put(guest, debs().agent, PACKAGE)
    with tempfile.TemporaryDirectory() as folder:
        put(guest, newer(debs().agent, Path(folder)), NEWER_PACKAGE)


def newer(package: Path, folder: Path) -> Path:
    """The same package with a later version."""
    output("dpkg-deb", "--raw-extract", package, folder / "tree")
    control = folder / "tree/DEBIAN/control"
    lines = control.read_text().splitlines()
    changed = [f"Version: {NEWER_VERSION}" if s.startswith("Version:") else s for s in lines]
    control.write_text("\n".join(changed) + "\n")
    output("dpkg-deb", "--build", "--root-owner-group", folder / "tree", folder / "newer.deb")
    return folder / "newer.deb"


def put(guest: Guest, file: Path, path: str) -> None:
    guest.run(["/bin/sh", "-ec", 'cat >"$1"', "sh", path], stdin=file.read_bytes())


def apt(guest: Guest, *arguments: str, check: bool = True) -> Result:
    """Run apt-get without a terminal, so that nobody can answer questions."""
    argv = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", *arguments]
    return guest.run(argv, timeout=300, check=check)


def show(guest: Guest, name: str, unit: str = UNIT) -> str:
    """A property of a unit."""
    return guest.run(["systemctl", "show", f"--property={name}", "--value", unit]).stdout.strip()


def wait_until_active(guest: Guest) -> None:
    wait_for(lambda: show(guest, "ActiveState") == "active", "the agent to serve")


def replug(guest: Guest) -> None:
    """Unplug the port, wait until the agent has exited, plug it in, and wait for the next agent."""
    guest.unplug_port()
    wait_for(lambda: show(guest, "ActiveState") == "inactive", "the agent to end")
    guest.plug_port()
    wait_until_active(guest)


def is_ours(guest: Guest) -> bool:
    """Return whether the process of the unit is our package's."""
    command = guest.run(["cat", f"/proc/{show(guest, 'MainPID')}/cmdline"]).stdout.split("\0")
    return command[:3] == ["/usr/bin/python3", "-ISXutf8", "/usr/sbin/qemu-ga"]


def files(guest: Guest) -> set[str]:
    """All files and directories of the guest, except those that change by themselves."""
    pruned = [word for path in NOT_LISTED for word in ("-path", path, "-o")][:-1]
    argv = ["find", "/", "(", *pruned, ")", "-prune", "-o", "-print"]
    return set(guest.run(argv).stdout.splitlines())


@contextmanager
def data_filesystem(guest: Guest) -> Iterator[str]:
    """Mount a filesystem that the system does not use; yields its mount point."""
    script = 'mkfs.ext4 -q "$1"; mkdir /mnt/data; mount "$1" /mnt/data'
    guest.run(["/bin/sh", "-ec", script, "sh", DATA_DISK])
    try:
        yield "/mnt/data"
    finally:
        guest.run(["/bin/sh", "-ec", "umount /mnt/data; rmdir /mnt/data"])


def is_frozen(guest: Guest, place: str) -> bool:
    """Return whether the kernel reports a filesystem as frozen."""
    script = "import fcntl,os,sys; fcntl.ioctl(os.open(sys.argv[1], 0), 0xC0045877, 0)"
    frozen = guest.run(["python3", "-IBc", script, place], check=False)
    if frozen.status == 0:
        guest.run(["fsfreeze", "--unfreeze", place])
        return False
    assert "Errno 16" in frozen.stderr, frozen.stderr  # EBUSY
    return True


def refused(agent: AgentSocket, command: str) -> bool:
    """Return whether the agent knows the command and has it disabled."""
    entries = agent.execute("guest-info")["supported_commands"]
    return any(entry["name"] == command and not entry["enabled"] for entry in entries)
