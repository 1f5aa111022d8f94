"""What files of tests leave in the shared guest, where others would find it."""

from __future__ import annotations

import re
import time

from .vm import Guest

LOOK = r"""
find /mnt /root /run /srv /tmp /var/tmp -mindepth 1 -maxdepth 1 -printf 'file %p\n'
find /etc /etc/systemd/system /etc/udev/rules.d /home /opt -mindepth 1 -maxdepth 1 \
    -printf 'found %p\n'
find /run/systemd/transient -name '*.service' -printf 'unit %f\n'
cut -d : -f 1 /etc/passwd | sed 's/^/account /'
cut -d ' ' -f 5 /proc/self/mountinfo | sed 's/^/mount /'
ip -oneline address | awk '{ print "address", $2, $4 }'
losetup --noheadings --output=NAME | sed 's/^/loop device /'
"""
# The disks and the account that files share, and what the system makes when it is first needed.
SHARED = re.compile(
    r"(file|mount) /mnt/(part|mirror|trimmed|volume|crypt|nvme|usb)|account person"
    r"|found (/home/person|/etc/\w+-|/etc/\.pwd\.lock)|unit (qga-programs|run-).*"
    r"|file /run/(blkid|cryptsetup|lvm|mdadm|qga.*|sudo|user|utmp)|mount /run/(credentials|user)/.*"
    r"|mount /(dev|proc|sys)/.*|address eth0 (10\.0\.2\.|fe[8c]0:).*"
    r"|file (/var)?/tmp/systemd-private-.*"
)


class LeftOvers:
    """What is new in a guest, by the file of tests after which it was first seen."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.first_seen = dict.fromkeys(self.look(), "")

    def look(self) -> set[str]:
        found = self.guest.run(["/bin/sh", "-c", LOOK]).stdout.splitlines()
        return {each for each in found if not SHARED.fullmatch(each)}

    def tidy_up(self, file: str, patience: float = 30.0) -> list[str]:
        """Remove files and units that this file of tests has left; returns what else it has left.

        patience: seconds in which other things may go, some of which the kernel removes later.
        """
        deadline = time.monotonic() + patience
        while (left := self._tidy_up(file)) and time.monotonic() < deadline:
            time.sleep(1)
        return left

    def _tidy_up(self, file: str) -> list[str]:
        now = self.look()
        for each in now:
            self.first_seen.setdefault(each, file)
        left = sorted(each for each in now if self.first_seen[each] == file)
        mounts = tuple(f"{each.removeprefix('mount ')}/" for each in now if "mount " in each)
        paths = [each.removeprefix("file ") for each in left if each.startswith("file ")]
        safe = [path for path in paths if not any(m.startswith(f"{path}/") for m in mounts)]
        self.guest.run(["rm", "-rf", "--", *safe])
        for unit in [each.removeprefix("unit ") for each in left if each.startswith("unit ")]:
            self.guest.run(["systemctl", "stop", unit], check=False)
            self.guest.run(["systemctl", "reset-failed", unit], check=False)
        return [each for each in left if not each.startswith(("file ", "unit "))]
