"""Filesystems on every kind of layers grow while they are written to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import growing
from .agent_socket import AgentError, AgentSocket, encode
from .growing import DISKS, PASSPHRASE, enlarge, grow, written
from .hardware import MEGABYTE
from .service import by_hand, stopped, wait_for
from .vm import SPARE_PORT, Guest

pytestmark = pytest.mark.timeout(900)

# MiB that partition tables, other partitions, the alignment, LUKS and LVM take.
LOST = {"gpt": 18, "mbr": 2, "lvm": 6, "luks": 5, "luks2": 22}
REFUSED = {
    "first": "is not the last partition: /dev/loop0p2 follows it",
    "other": "the filesystem at /mnt/other is ext2, which cannot be grown; ext4, xfs, btrfs can",
    "logical": "is a logical partition: the extended partition around it would have to grow first",
    "primary": "is not the last partition: /dev/loop2p2 follows it",
    "two": "lies on several devices (/dev/loop3, /dev/loop4): grow it with `btrfs",
    "raid": "/dev/md7 is made of 2 devices: grow it with mdadm --grow",
    "thin": "is not a plain linear volume: grow it with lvextend",
    "locked": "is mounted read-only",
    "hidden": "is tmpfs, which cannot be grown",
    "errors": "the filesystem at /mnt/errors has errors: run e2fsck first",
    "blocks": "would have too many blocks: it lacks the feature 64bit",
    "fixed": "/dev/loop13 is read-only",
    "small": "is btrfs, which can only grow to 256 MiB or more",
    "busy": "the filesystem at /mnt/busy is busy: balance paused",
    "lost": "a physical volume of lost is missing",
    "unknown": "lvs --noheadings",
    "covered/below": "the filesystem at /mnt/covered/below is hidden under another mount",
    "covered/gone": "cannot open /mnt/covered/gone: No such file or directory",
    "pulled": "the filesystem at /mnt/pulled lies on no block device of this guest",
    "beneath": "cannot examine the devices beneath /mnt/beneath: ",
    "nothing": "'/mnt/nothing' is not a mount point",
}


CONFIG = "/etc/qemu/growing.conf"
TWO_CHANNELS = f"""
[channel other]
method=virtio-serial
path=/dev/virtio-ports/{SPARE_PORT.name}
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    with Guest(growing.hardware) as machine:
        growing.set_up(machine)
        machine.write_file(CONFIG, TWO_CHANNELS)
        machine.plug_port(SPARE_PORT)
        with stopped(machine), by_hand(machine, f"--config={CONFIG}"):
            yield machine


@pytest.fixture(scope="module")
def refused(machine: Guest) -> Guest:
    growing.set_up_refused(machine)
    return machine


@pytest.fixture
def agent(machine: Guest) -> Iterator[AgentSocket]:
    with machine.connect(timeout=200) as agent:
        yield agent


def blocks_of(guest: Guest, name: str) -> int:
    """How many blocks the filesystem has, without its own."""
    return int(guest.run(["stat", "-f", "-c", "%b", f"/mnt/{name}"]).stdout)


def secret(name: str) -> dict[str, str]:
    return {"passphrase": PASSPHRASE} if name == "luks2" else {}


@contextmanager
def replaced(guest: Guest, program: str, script: str) -> Iterator[None]:
    """A script in place of a program, which it finds as /var/tmp/original."""
    guest.write_file("/var/tmp/instead", f"#!/bin/sh\n{script}\n", mode="755")
    guest.run(
        [
            "/bin/sh",
            "-ec",
            f"cp {program} /var/tmp/original; mount --bind /var/tmp/instead {program}",
        ]
    )
    try:
        yield
    finally:
        guest.run(["umount", program])


def table(guest: Guest, name: str) -> str:
    """The partitions of a disk."""
    return guest.run(["/bin/sh", "-ec", growing.SCRIPT + f"begin {name}; sfdisk -d $disk"]).stdout


@pytest.mark.parametrize("name", DISKS)
def test_grows_while_it_is_written_to(machine: Guest, agent: AgentSocket, name: str) -> None:
    grow(agent, f"/mnt/{name}", **secret(name))  # what a try before has left to do
    assert grow(agent, f"/mnt/{name}")["steps"] == []
    before, blocks = written(machine, name), blocks_of(machine, name)
    enlarge(machine, name)
    forecast = grow(agent, f"/mnt/{name}", **secret(name), **{"dry-run": True})
    assert blocks_of(machine, name) == blocks
    done = grow(agent, f"/mnt/{name}", **secret(name))
    after = written(machine, name)
    assert [step["layer"] for step in done["steps"]] == list(DISKS[name].layers)
    assert blocks_of(machine, name) > blocks
    for foreseen, step in zip(forecast["steps"], done["steps"]):
        assert (foreseen["done"], step["done"]) == (False, True)
        assert foreseen["before"] == step["before"] < step["after"]
        assert abs(foreseen["after"] - step["after"]) < MEGABYTE
    assert done["size"] >= (DISKS[name].after - LOST[name]) * MEGABYTE
    assert after > before
    assert grow(agent, f"/mnt/{name}", **secret(name))["steps"] == []


def test_a_passphrase_that_is_missing_or_wrong(machine: Guest, agent: AgentSocket) -> None:
    before = table(machine, "luks2")
    enlarge(machine, "luks2", 144)
    with pytest.raises(AgentError, match="a passphrase is required to grow luks2"):
        grow(agent, "/mnt/luks2")
    with pytest.raises(AgentError, match=r"the passphrase does not open .*: No key available"):
        grow(agent, "/mnt/luks2", passphrase="another phrase")
    assert table(machine, "luks2") == before
    journal = machine.run(["journalctl", "--unit=by-hand-*"]).stdout
    assert "/mnt/luks2" in journal
    assert "phrase" not in journal.replace("passphrase", "")


def test_without_growpart_sfdisk_grows_it(machine: Guest, agent: AgentSocket) -> None:
    before = table(machine, "gpt")
    enlarge(machine, "gpt", 128)
    machine.run(["chmod", "-x", "/usr/bin/growpart"])
    try:
        machine.run(["chmod", "-x", "/usr/sbin/sfdisk"])
        try:
            with pytest.raises(AgentError, match="sfdisk is missing in the guest: install fdisk"):
                grow(agent, "/mnt/gpt")
        finally:
            machine.run(["chmod", "+x", "/usr/sbin/sfdisk"])
        assert table(machine, "gpt") == before
        forecast = grow(agent, "/mnt/gpt", **{"dry-run": True})["steps"]
        done = grow(agent, "/mnt/gpt")["steps"]
    finally:
        machine.run(["chmod", "+x", "/usr/bin/growpart"])
    assert [step["tool"] for step in done] == ["sfdisk", "resize2fs"]
    assert done[0]["after"] == forecast[0]["after"] > 108 * MEGABYTE
    # Nothing but the size of the partition, and where the last one may end, has changed.
    same = [line for line in before.splitlines() if line in table(machine, "gpt").splitlines()]
    assert len(same) == len(before.splitlines()) - 2


def test_stopped_half_way_it_goes_on_later(machine: Guest, agent: AgentSocket) -> None:
    enlarge(machine, "mbr", 96)
    with (
        replaced(machine, "/usr/sbin/resize2fs", "echo 'no luck'; exit 3"),
        pytest.raises(AgentError) as caught,
    ):
        grow(agent, "/mnt/mbr")
    assert "resize2fs /dev/sda1 failed with status 3: no luck" in str(caught.value)
    assert "already grown: /dev/sda1; try again to go on" in str(caught.value)
    assert [step["layer"] for step in grow(agent, "/mnt/mbr")["steps"]] == ["filesystem"]


def test_one_at_a_time_and_none_while_frozen(machine: Guest, agent: AgentSocket) -> None:
    enlarge(machine, "mbr", 112)
    wait = "touch /run/waiting; while [ -e /run/waiting ]; do sleep 0.1; done"
    is_there = ["test", "-e", "/run/waiting"]
    with (
        replaced(
            machine,
            "/usr/bin/growpart",
            f'[ "$1" = --dry-run ] || {{ {wait}; }}; . /var/tmp/original',
        ),
        machine.connect(SPARE_PORT) as other,
    ):
        agent.send(encode("qga-grow-filesystem", {"mountpoint": "/mnt/mbr"}))
        wait_for(lambda: not machine.run(is_there, check=False).status, "growpart to run")
        with pytest.raises(AgentError, match="another filesystem is being grown"):
            grow(other, "/mnt/gpt")
        assert other.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/gpt"]) == 1
        try:
            machine.run(["rm", "/run/waiting"])
            assert b"frozen meanwhile; already grown: /dev/sda1" in agent.read_line()
        finally:
            assert other.execute("guest-fsfreeze-thaw") == 1
    assert [step["layer"] for step in grow(agent, "/mnt/mbr")["steps"]] == ["filesystem"]


def test_what_somebody_else_has_frozen_is_refused(machine: Guest, agent: AgentSocket) -> None:
    machine.run(["fsfreeze", "--freeze", "/mnt/gpt"])
    try:
        with pytest.raises(AgentError, match="the filesystem at /mnt/gpt is frozen"):
            grow(agent, "/mnt/gpt")
    finally:
        machine.run(["fsfreeze", "--unfreeze", "/mnt/gpt"])


MISSING = {
    "lvm": ("xfs_growfs", "lvextend", "pvresize", "lvs", "growpart sfdisk", "growpart partx"),
    "luks": ("btrfs", "cryptsetup"),
    "gpt": ("resize2fs",),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_tool_that_is_missing(machine: Guest, agent: AgentSocket, name: str) -> None:
    before = table(machine, name)
    enlarge(machine, name, DISKS[name].after + 24)
    for programs in MISSING[name]:
        last = programs.split()[-1]
        find = f"for name in {programs}; do command -v $name; done"
        paths = machine.run(["/bin/sh", "-c", find]).stdout.split()
        move = "for path; do mv $path $path-away; done"
        back = "for path; do mv $path-away $path; done"
        machine.run(["/bin/sh", "-ec", move, "sh", *paths])
        try:
            with pytest.raises(AgentError, match=f"{last} is missing in the guest: install "):
                grow(agent, f"/mnt/{name}")
        finally:
            machine.run(["/bin/sh", "-ec", back, "sh", *paths])
    assert table(machine, name) == before


NONSENSE = {
    "gpt": ("growpart", "cannot tell how growpart would grow /dev/vd.2: all is well"),
    "luks": ("cryptsetup", "cannot tell where luks has its data on "),
    "lvm": ("lvs", "LVM does not know what the volume is: all is well"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_tool_that_says_something_else(machine: Guest, agent: AgentSocket, name: str) -> None:
    """As another release of it may."""
    tool, text = NONSENSE[name]
    path = machine.run(["/bin/sh", "-c", f"command -v {tool}"]).stdout.strip()
    before = table(machine, name)
    enlarge(machine, name, DISKS[name].after + 24)
    with replaced(machine, path, "echo all is well"), pytest.raises(AgentError, match=text):
        grow(agent, f"/mnt/{name}")
    assert table(machine, name) == before


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refused: Guest, agent: AgentSocket, name: str) -> None:
    before = refused.run(["lsblk", "--bytes", "--raw"]).stdout
    with pytest.raises(AgentError) as caught:
        grow(agent, f"/mnt/{name}")
    assert REFUSED[name] in str(caught.value)
    assert refused.run(["lsblk", "--bytes", "--raw"]).stdout == before


@pytest.mark.parametrize("path", ["", "relative", "/nowhere"])
def test_not_a_mount_point(agent: AgentSocket, path: str) -> None:
    with pytest.raises(AgentError, match=f"'{path}' is not a mount point"):
        grow(agent, path)


@pytest.mark.parametrize(("name", "size"), [("whole", 24), ("gap", 39)])
def test_disks_with_large_sectors(refused: Guest, agent: AgentSocket, name: str, size: int) -> None:
    """A filesystem without a partition, and a partition with a gap behind it."""
    done = grow(agent, f"/mnt/{name}/")
    assert done["mountpoint"] == f"/mnt/{name}"
    assert done["size"] == size * MEGABYTE


def test_qgactl_shows_the_steps(machine: Guest) -> None:
    enlarge(machine, "gpt", 144)
    shown = qgactl(machine, "/mnt/gpt", "--dry-run").splitlines()
    assert shown[0].split() == ["Layer", "Device", "Tool", "Before", "After", "Done"]
    assert shown[-1].split()[0] == "filesystem"
    assert shown[-1].split()[-1] == "no"
    done = json.loads(qgactl(machine, "/mnt/gpt", "--json"))
    assert [step["done"] for step in done["steps"]] == [True, True]
    assert "has nowhere to grow" in qgactl(machine, "/mnt/gpt")


def qgactl(guest: Guest, *words: str) -> str:
    program = str(Path(sys.executable).parent / "qgactl")
    argv = [program, "grow", f"unix:{guest.channel_path()}", *words]
    ended = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=200)
    return ended.stdout


def test_nothing_that_was_written_is_lost(machine: Guest) -> None:
    """After all this; the last test that needs the filesystems."""
    assert growing.end_load(machine) == "success exited"
    assert growing.damaged(machine) == ""
    for name in DISKS:
        growing.check(machine, name)
