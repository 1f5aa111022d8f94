"""A filesystem that does not answer: every process that uses it hangs, except the agent."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import partial

import pytest

from .agent_socket import AgentError, AgentSocket, encode
from .freezing import frozen_places, has_waiting_thread, thawed_after, waiting_disk
from .image import CHECKOUT
from .service import main_pid, state_of, wait_for
from .vm import Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks")]

COMMANDS = json.loads((CHECKOUT / "tests/interface.json").read_text())["commands"]
READING = sorted(name for name in COMMANDS if name.startswith(("guest-get-", "guest-network-")))
READING += ["qga-get-memory", "qga-get-metrics"]

# A FUSE server that says how to talk to it and that it has a folder, and then stops, by a signal
# to itself. Its mounts are of two kinds: without a block device, and on a block device, as those
# of ntfs-3g are. An ext4 is mounted on the folder, another had its place hidden by a mount.
SERVER = r"""
import ctypes, os, signal, struct, sys
from _thread import start_new_thread
from systemd.daemon import notify

libc = ctypes.CDLL(None, use_errno=True)
in_use, hidden, beneath = sys.argv[1:]

def mount(kind, source, target, options=""):
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)

def serve(kind, source, target, options=""):
    os.makedirs(target, exist_ok=True)
    fd = os.open("/dev/fuse", os.O_RDWR)
    mount(kind, source, target, f"fd={fd},rootmode=40000,user_id=0,group_id=0{options}")
    start_new_thread(answer_all, (fd,))

def answer_all(fd):
    while True:
        request = os.read(fd, 1 << 17)
        kind, unique = struct.unpack_from("=4xIQ", request)
        answer = {INIT: protocol, LOOKUP: folder}.get(kind)
        head = struct.pack("=IiQ", 16 + len(answer or b""), 0 if answer else -38, unique)
        os.write(fd, head + (answer or b""))

INIT, LOOKUP = 26, 1
protocol = struct.pack("=IIIIHHIIHHI", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0).ljust(64, b"\0")
# struct fuse_entry_out: node 2, remembered for no time at all; a folder
attributes = struct.pack("=6Q3I7I", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
folder = struct.pack("=4Q2I", 2, 0, 0, 0, 0, 0) + attributes

os.makedirs("/mnt/hidden/below", exist_ok=True)
mount("ext4", hidden, "/mnt/hidden/below")
serve("fuse", "nowhere", "/mnt/hidden")
serve("fuse", "nowhere", "/mnt/hanging")
serve("fuseblk", in_use, "/mnt/hanging-disk", ",blksize=512")
mount("ext4", beneath, "/mnt/hanging/below")
notify("READY=1")
os.kill(os.getpid(), signal.SIGSTOP)
"""
HANGING = ("/mnt/hanging", "/mnt/hanging-disk", "/mnt/hidden")
OUT_OF_REACH = ("/mnt/hanging/below", "/mnt/hidden/below")


@pytest.fixture(scope="module", autouse=True)
def hanging(guest: Guest, disks: None) -> Iterator[None]:
    guest.run(["modprobe", "-a", "fuse", "loop"])
    devices = [loop_device(guest, f"/run/disk{number}") for number in range(3)]
    guest.write_file("/run/server.py", SERVER)
    options = ["--unit=server", "--service-type=notify", "--property=NotifyAccess=all"]
    guest.run(
        ["systemd-run", "--collect", *options, "/usr/bin/python3", "/run/server.py", *devices]
    )
    yield
    guest.run(["systemctl", "kill", "--signal=KILL", "server"])
    guest.run(["umount", "--lazy", *HANGING])
    guest.run(["umount", "/mnt/hidden/below"])
    guest.run(["losetup", "--detach", *devices])


def loop_device(guest: Guest, path: str) -> str:
    """A block device with an ext4, kept in a file."""
    guest.run(["/bin/sh", "-ec", f"truncate --size=1M {path}; mkfs.ext4 -q {path}"])
    return guest.run(["losetup", "--show", "--find", path]).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def somebody_waits(guest: Guest, hanging: None) -> None:
    """The mounts do hang."""
    assert guest.original is not None
    server = main_pid(guest, "server")
    wait_for(lambda: state_of(guest, server) == "T", "the server to stop")
    for place in (*HANGING, *OUT_OF_REACH):
        pid = guest.original.execute("guest-exec", path="ls", arg=[place])["pid"]
        wait_for(partial(waits, guest, pid), "ls to wait")
        assert not guest.original.execute("guest-exec-status", pid=pid)["exited"]


def waits(guest: Guest, pid: int) -> bool:
    return state_of(guest, pid) in "SD"


@pytest.mark.parametrize("command", READING)
def test_answered(agent: AgentSocket, command: str) -> None:
    assert agent.execute(command) is not None


def test_filesystems_are_listed_without_their_size(agent: AgentSocket) -> None:
    told = {each["mountpoint"]: each for each in agent.execute("guest-get-fsinfo")}
    for place in ("/mnt/hanging-disk", *OUT_OF_REACH):
        assert told[place]["name"].startswith("loop")
        assert "used-bytes" not in told[place]
    assert told["/mnt/usb"]["used-bytes"] > 0


def test_metrics_are_listed_without_sizes(agent: AgentSocket) -> None:
    told = {each["mountpoint"]: each for each in agent.execute("qga-get-metrics")["filesystems"]}
    for place in ("/mnt/hanging-disk", *OUT_OF_REACH):
        assert told[place].keys() == {"device", "mountpoint", "type"}
    assert told["/mnt/usb"]["inodes"] > 0


def test_others_are_trimmed(agent: AgentSocket) -> None:
    told = {each["path"]: each for each in agent.execute("guest-fstrim")["paths"]}
    for place in OUT_OF_REACH:
        assert told[place]["error"] == "failed to trim: it does not answer"
    assert "trimmed" in told["/mnt/trimmed"]


def test_what_cannot_be_reached_cannot_be_frozen(guest: Guest, agent: AgentSocket) -> None:
    with thawed_after(agent):
        for place in OUT_OF_REACH:
            with pytest.raises(AgentError, match=f"failed to freeze {place}: it does not answer"):
                agent.execute("guest-fsfreeze-freeze-list", mountpoints=[place])
        with pytest.raises(AgentError, match="failed to freeze"):
            agent.execute("guest-fsfreeze-freeze")
        assert frozen_places(guest) == set()


def test_others_are_frozen_and_thawed(guest: Guest, agent: AgentSocket) -> None:
    with thawed_after(agent):
        assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/usb"]) == 1
        assert frozen_places(guest) == {"/mnt/usb"}
        assert agent.execute("guest-fsfreeze-thaw") == 1
        assert frozen_places(guest) == set()


def test_a_read_that_waits_for_its_disk_blocks_nobody(guest: Guest, agent: AgentSocket) -> None:
    """The kernel has a copy of the first 64 KiB only."""
    path, cached, size = "/mnt/crypt/read", 64 * 1024, 1024 * 1024
    make = f"head -c {size} /dev/urandom >{path}; sync; echo 3 >/proc/sys/vm/drop_caches"
    read_some = f"dd if={path} of=/dev/null bs={cached} count=1 iflag=nonblock"
    guest.run(["/bin/sh", "-ec", f"{make}; blockdev --setra 0 /dev/mapper/crypt; {read_some}"])
    handle = agent.execute("guest-file-open", path=path)
    with waiting_disk(guest):
        agent.send(encode("guest-file-read", {"handle": handle, "count": size}))
        pid = main_pid(guest)
        wait_for(lambda: has_waiting_thread(guest, pid), "the read to wait")
        agent.sync()
        assert agent.execute("guest-ping") == {}
    agent.execute("guest-file-seek", handle=handle, offset=0, whence="set")
    reply = agent.execute("guest-file-read", handle=handle, count=size)
    assert reply["count"] == size
    expected = guest.run(["sha256sum", path]).stdout.split()[0]
    assert hashlib.sha256(base64.b64decode(reply["buf-b64"])).hexdigest() == expected
    agent.execute("guest-file-close", handle=handle)
