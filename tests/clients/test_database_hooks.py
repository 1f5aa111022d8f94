"""virsh snapshot-create-as --quiesce with the hooks for databases: what a second guest finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest import databases
from tests.guest.image import run
from tests.guest.service import by_hand, stopped, wait_for
from tests.guest.test_database_hooks import (
    OPTIONS,
    check_databases,
    moments,
    needs_replay,
    wait_until_written_again,
)
from tests.guest.vm import Guest

from .domain import Domain

pytestmark = pytest.mark.timeout(900)


def test_a_snapshot_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    """The file to which the domain wrote before is the snapshot."""
    disk = tmp_path / "base.raw"
    with Domain(databases.database_image) as domain:
        databases.install_hooks(domain)
        databases.wait_until_up(domain)
        databases.start_load(domain)
        base = domain.disk("vda")
        with stopped(domain), by_hand(domain, *OPTIONS):
            wait_for(domain.answers, "libvirt to reach the agent")
            left_alone = ["--diskspec=vdb,snapshot=no", "--diskspec=sdc,snapshot=no"]
            after = f"--diskspec=vda,file={domain.folder}/after.qcow2"
            options = ["--disk-only", "--no-metadata", "--quiesce", after, *left_alone]
            domain.virsh("snapshot-create-as", *options)
        last = moments(domain)
        assert domain.disk("vda") != base
        wait_until_written_again(domain)
        domain.virsh("destroy")
        run(["qemu-img", "convert", "-O", "raw", str(base), str(disk)])
    assert needs_replay(disk) is False
    with Guest(image=lambda: databases.copied(disk)) as restored:
        databases.wait_until_up(restored)
        check_databases(restored, last)
