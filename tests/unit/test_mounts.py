"""What is made of the mount table."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import pytest

mounts: Any = import_module("qga.commands._mounts")

TABLE = rb"""22 28 0:21 / /sys rw,relatime shared:7 - sysfs sysfs rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
29 28 254:1 /home /bound rw - ext4 /dev/vda1 rw
30 28 7:9 / /with\040space\134 rw shared:3 master:1 - xfs /dev/loop9 rw
40 28 0:50 / /hanging rw - fuse.sshfs host:/ rw
41 40 7:0 / /hanging/below rw - ext4 /dev/loop0 rw
42 28 7:1 / /hanging-not rw - ext4 /dev/loop1 rw
43 28 7:2 / /ntfs rw - fuseblk /dev/loop2 rw
44 43 7:3 / /ntfs/below rw - ext4 /dev/loop3 rw
45 28 7:4 / /hidden/below rw - ext4 /dev/loop4 rw
46 28 0:51 / /hidden rw - nfs4 host:/ rw
47 28 0:52 / /run rw - tmpfs tmpfs rw
48 47 7:5 / /run/below rw - ext4 /dev/loop5 rw
"""

PLAIN_TABLE = b"".join(
    line for line in TABLE.splitlines(True) if b"/h" not in line and b"/n" not in line
)

ODD_TABLE = (
    rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 27 0:25 / /net rw - nfs4 server:/dev/vda1 rw
31 27 8:16 /sub /mnt/with\040space rw shared:7 master:1 - xfs /dev/sdb rw
32 27 8:16 / /mnt/again rw - xfs /dev/sdb rw
33 27 0:40 / /mnt/many rw - btrfs /dev/null rw,subvol=/
34 27 0:41 / /mnt/lost rw - btrfs /dev/no-such-device rw
35 27 0:42 / /mnt/fake rw - tmpfs btrfs rw
36 27 8:32 / /mnt/"""
    + b"a\rb\xff"
    + rb""" rw - fuseblk  rw
"""
)


def test_a_filesystem_is_reported_once_with_all_its_places() -> None:
    root, other, *_ = mounts.parse(TABLE)
    assert root[:4] == ((254, 1), ["/", "/bound"], "ext4", "/dev/vda1")
    assert other[:4] == ((7, 9), ["/with space\\"], "xfs", "/dev/loop9")


def test_what_has_no_block_device_is_left_out() -> None:
    found = [place for mount in mounts.parse(TABLE) for place in mount.paths]
    assert not {"/sys", "/hanging", "/hidden", "/run"} & set(found)


def test_ways_through_what_others_serve() -> None:
    may_wait = {mount.paths[0] for mount in mounts.parse(TABLE) if mount.may_wait}
    assert may_wait == {"/hanging/below", "/ntfs", "/ntfs/below", "/hidden/below"}


def test_the_table_of_now_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (TABLE, PLAIN_TABLE, TABLE):
        monkeypatch.setattr(mounts, "read_kept", lambda _path, table=table: table)
        assert mounts.block_mounts() == mounts.parse(table)


def test_odd_paths_and_btrfs() -> None:
    null = os.stat("/dev/null").st_rdev
    assert [mount[:4] for mount in mounts.parse(ODD_TABLE)] == [
        ((254, 1), ["/"], "ext4", "/dev/vda1"),
        ((8, 16), ["/mnt/with space", "/mnt/again"], "xfs", "/dev/sdb"),
        ((os.major(null), os.minor(null)), ["/mnt/many"], "btrfs", "/dev/null"),
        ((8, 32), ["/mnt/a\rb\udcff"], "fuseblk", ""),
    ]


def test_a_line_that_no_kernel_writes() -> None:
    """It costs no other line, and no error."""
    table = (
        b"30 27 8:1 / /cut rw - ext4 /dev/sda\n31 27 8:2 / /cut rw shared:1\n"
        b"32 27 8:3 / /a\\000b\\400\\040c rw - ext4 /dev/sdb rw\n"
    )
    assert [mount[:2] for mount in mounts.parse(table)] == [((8, 3), ["/a\\000b\\400 c"])]
