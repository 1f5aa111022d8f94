"""Our connection of Ansible next to libvirt_qemu: the same playbook has the same results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ecosystem.ansible_runs import Ran

from .domain import Domain
from .side_by_side import OURS, THEIRS, SideBySide

pytestmark = pytest.mark.timeout(900)

FILE = ("changed", "checksum", "group", "mode", "owner", "size", "state")
COMPARED = {
    "facts": ("ansible_facts", "changed"),
    "template": FILE,
    "copy": FILE,
    "apt": ("changed",),
    "service": ("changed", "state"),
}
# $1: the host's name, by which its files, package and service are called.
LOOK = """
cd /root
sha256sum <$1.copy
stat --format='%a %U' $1.motd
cat $1.motd
dpkg-query --show --showformat='${Status}\\n' $1
systemctl is-active $1
"""


@pytest.fixture
def side_by_side(domain: Domain, tmp_path: Path) -> Iterator[SideBySide]:
    side_by_side = SideBySide(domain, tmp_path)
    yield side_by_side
    side_by_side.clean()


def test_the_results_are_the_same(side_by_side: SideBySide) -> None:
    played = side_by_side.play()
    assert compared(played[OURS]) == compared(played[THEIRS])
    assert compared(played[OURS])["apt"] == {"changed": True}
    domain = side_by_side.domain
    kernel = domain.run(["uname", "-r"]).stdout.strip()
    expected = [
        f"{hashlib.sha256(side_by_side.content).hexdigest()}  -",
        "640 root",
        f"guest runs {kernel}",
        "install ok installed",
        "active",
    ]
    for name in (OURS, THEIRS):
        seen = domain.run(["/bin/sh", "-c", LOOK, "sh", name]).stdout.splitlines()
        assert seen == expected, name
        assert (side_by_side.folder / name).read_bytes() == side_by_side.content


def compared(played: dict[str, Ran]) -> dict[str, dict[str, Any]]:
    """What the tasks report, without names of files and times."""
    return {
        task: {field: played[task].result[field] for field in fields}
        for task, fields in COMPARED.items()
    }
