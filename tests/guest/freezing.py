"""Effects of a freeze on the guest, observed without the agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .agent_socket import AgentError, AgentSocket
from .service import state_of, wait_for
from .vm import Guest, Result

# Freezes each filesystem for a moment, to see whether it is frozen.
LOOK = """
import errno, fcntl, os, sys

for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0xC0045877, 0)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        print(path)
        continue
    try:
        fcntl.ioctl(fd, 0xC0045878, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the agent has thawed it meanwhile
            raise
"""
# Something is left to be written when the disk goes.
BREAK = """
first=$(findmnt --noheadings --output=SOURCE /mnt/part)
empty="${first%1}2"
usb=$(findmnt --noheadings --output=SOURCE /mnt/usb)
size=$(blockdev --getsz "$empty")
dmsetup create failing --table "0 $size linear $empty 0"
mkfs.ext4 -q /dev/mapper/failing
mkdir -p /mnt/failing
umount /mnt/usb
mount /dev/mapper/failing /mnt/failing
mount "$usb" /mnt/usb
echo something >/mnt/failing/file
dmsetup load failing --table "0 $size error"
dmsetup suspend --noflush --nolockfs failing
dmsetup resume failing
"""
UNPLUG = """
modprobe scsi_debug dev_size_mb=64 add_host=1
udevadm settle
disk=$(lsblk --nodeps --noheadings --paths --output=NAME,MODEL | awk '/scsi_debug/ { print $1 }')
mkfs.ext4 -q "$disk"
mkdir -p /mnt/unplugged
mount "$disk" /mnt/unplugged
echo something >/mnt/unplugged/file
echo 1 >"/sys/block/${disk##*/}/device/delete"
until [ ! -e "/sys/block/${disk##*/}" ]; do sleep 0.1; done
"""
PLACES = ("/", "/mnt/part", "/mnt/mirror", "/mnt/volume", "/mnt/crypt", "/mnt/nvme", "/mnt/usb")


def frozen_places(guest: Guest) -> set[str]:
    """Return which of PLACES the kernel reports as frozen."""
    argv = ["/usr/bin/python3", "-IBc", LOOK, *PLACES]
    return set(guest.run(argv).stdout.split())


@contextmanager
def thawed_after(agent: AgentSocket) -> Iterator[None]:
    """Thaw everything at the end, even if a thaw hook fails."""
    try:
        yield
    finally:
        with suppress(AgentError):
            agent.execute("guest-fsfreeze-thaw")


@contextmanager
def failing_filesystem(guest: Guest) -> Iterator[None]:
    """A filesystem on /mnt/failing whose disk is gone; /mnt/usb is mounted after it."""
    try:
        guest.run(["/bin/sh", "-ec", BREAK])
        yield
    finally:
        undo = "umount /mnt/failing || :; dmsetup remove --retry failing"
        guest.run(["/bin/sh", "-ec", undo])


@contextmanager
def unplugged_filesystem(guest: Guest) -> Iterator[None]:
    """A filesystem on /mnt/unplugged whose disk was unplugged while it was mounted."""
    try:
        guest.run(["/bin/sh", "-ec", UNPLUG], timeout=120)
        yield
    finally:
        undo = "umount --lazy /mnt/unplugged; modprobe -r scsi_debug || :"
        guest.run(["/bin/sh", "-c", undo])


@contextmanager
def mounted(guest: Guest, file: str, mkfs: str) -> Iterator[None]:
    """A filesystem in a file, made by `mkfs`, on /mnt/inner. Thaws it at the end."""
    make = f"truncate --size=8M {file}; {mkfs} {file}; mkdir -p /mnt/inner"
    try:
        guest.run(["/bin/sh", "-ec", f"modprobe loop; {make}; mount -o loop {file} /mnt/inner"])
        yield
    finally:
        thaw = "for place in /mnt/usb /mnt/inner; do fsfreeze --unfreeze $place || :; done"
        guest.run(["/bin/sh", "-ec", f"{thaw}; umount /mnt/inner; rm {file}"])


@contextmanager
def waiting_disk(guest: Guest) -> Iterator[None]:
    """The disk of /mnt/crypt accepts no writes, and some data is waiting to be written to it."""
    guest.run(["/bin/sh", "-ec", "echo something >/mnt/crypt/file"])
    guest.run(["dmsetup", "suspend", "--noflush", "--nolockfs", "crypt"])
    try:
        yield
    finally:
        guest.run(["dmsetup", "resume", "crypt"])


def has_waiting_thread(guest: Guest, pid: int) -> bool:
    """Whether a thread of a process waits for a disk."""
    script = f"grep -l '^State:.D' /proc/{pid}/task/*/status"
    return bool(guest.run(["sh", "-c", script], check=False).stdout)


class Writer:
    """A program in the guest that writes to a file and syncs it."""

    def __init__(self, guest: Guest, path: str) -> None:
        assert guest.original is not None
        self.guest = guest
        self.agent = guest.original
        self.argv = ["dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=1", "conv=fsync"]
        request: dict[str, Any] = {"path": self.argv[0], "arg": self.argv[1:]}
        self.pid: int = self.agent.execute("guest-exec", **request)["pid"]

    def wait_until_blocked(self) -> None:
        wait_for(lambda: state_of(self.guest, self.pid) == "D", "the writer to block")

    def wait(self) -> Result:
        """Wait until it has written."""
        return self.guest.wait_exec(self.agent, self.argv, self.pid)


def can_write(guest: Guest, path: str) -> bool:
    """Whether a file can be written without waiting."""
    return Writer(guest, path).wait().status == 0
