"""What a file of tests leaves in the shared guest is removed, or fails that file."""

from __future__ import annotations

import pytest

from .left_overs import LeftOvers
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

LEAVE = """
mkdir -p /run/left/here /srv/left/below
mount --bind /etc /run/left/here
ip address add 192.0.2.99/32 dev lo
useradd left
systemd-run --unit=left-1 sleep 1000
! systemd-run --unit=left-2 --wait false
"""
UNDO = """
umount /run/left/here
ip address delete 192.0.2.99/32 dev lo
userdel left
"""


def test_files_are_removed_and_the_rest_is_named(guest: Guest, left_overs: LeftOvers) -> None:
    guest.run(["/bin/sh", "-ec", LEAVE])
    try:
        left = left_overs.tidy_up("a file of tests", 0)
        assert left == ["account left", "address lo 192.0.2.99/32", "mount /run/left/here"]
        assert left_overs.tidy_up("another") == []
        assert left_overs.tidy_up("a file of tests", 0) == left, "it is reported until it is gone"
        assert "left" not in guest.run(["ls", "/srv"]).stdout.split()
        assert guest.run(["systemctl", "list-units", "--all", "--quiet", "left-*"]).stdout == ""
        assert "left" in guest.run(["cat", "/run/left/here/passwd"]).stdout
    finally:
        guest.run(["/bin/sh", "-c", UNDO])
    assert left_overs.tidy_up("a file of tests") == []
    assert guest.run(["test", "-e", "/run/left"], check=False).status == 1
