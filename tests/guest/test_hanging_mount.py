"""A filesystem that does not answer: whoever touches it waits for ever, but for the agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest

from .agent_socket import AgentSocket
from .image import CHECKOUT
from .service import state_of, wait_for
from .vm import Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks")]

COMMANDS = json.loads((CHECKOUT / "tests/interface.json").read_text())["commands"]
READING = sorted(name for name in COMMANDS if name.startswith(("guest-get-", "guest-network-")))

# A FUSE server that says how to talk to it and then stops, by a signal to itself. Its mounts are
# of two kinds: one without a block device, one on a block device, as ntfs-3g's are.
SERVER = r"""
import ctypes, os, signal, struct, sys
from systemd.daemon import notify

libc = ctypes.CDLL(None, use_errno=True)

def serve(kind, source, target, options=""):
    os.makedirs(target, exist_ok=True)
    fd = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={fd},rootmode=40000,user_id=0,group_id=0{options}".encode()
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, data):
        raise OSError(ctypes.get_errno(), target)
    unique = struct.unpack_from("=IIQ", os.read(fd, 1 << 17))[2]
    # struct fuse_init_out: version 7.31, no wishes
    answer = struct.pack("=IIIIHHIIHHI", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0).ljust(64, b"\0")
    os.write(fd, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)

serve("fuse", "nowhere", "/mnt/hanging")
serve("fuseblk", sys.argv[1], "/mnt/hanging-disk", ",blksize=512")
notify("READY=1")
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture(scope="module", autouse=True)
def hanging(guest: Guest, disks: None) -> Iterator[None]:
    guest.run(["modprobe", "-a", "fuse", "loop"])
    guest.run(["truncate", "--size=1M", "/run/disk"])
    device = guest.run(["losetup", "--show", "--find", "/run/disk"]).stdout.strip()
    guest.write_file("/run/server.py", SERVER)
    options = ["--unit=server", "--service-type=notify", "--property=NotifyAccess=all"]
    guest.run(["systemd-run", *options, "/usr/bin/python3", "/run/server.py", device])
    yield
    guest.run(["systemctl", "kill", "--signal=KILL", "server"])
    guest.run(["umount", "/mnt/hanging", "/mnt/hanging-disk"])
    guest.run(["losetup", "--detach", device])


@pytest.fixture(scope="module", autouse=True)
def somebody_waits(guest: Guest, hanging: None) -> None:
    """The mounts do hang."""
    assert guest.original is not None
    for place in ("/mnt/hanging", "/mnt/hanging-disk"):
        pid = guest.original.execute("guest-exec", path="ls", arg=[place])["pid"]
        wait_for(partial(waits, guest, pid), "ls to wait")
        assert not guest.original.execute("guest-exec-status", pid=pid)["exited"]


def waits(guest: Guest, pid: int) -> bool:
    return state_of(guest, pid) in "SD"


@pytest.mark.parametrize("command", READING)
def test_answered(agent: AgentSocket, command: str) -> None:
    assert agent.execute(command) is not None
