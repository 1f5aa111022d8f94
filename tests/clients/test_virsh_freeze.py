"""Freezing through libvirt: by hand, and as a part of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import service
from tests.guest.freezing import Writer, can_write
from tests.guest.image import run

from .daemon import LibvirtError
from .domain import Domain

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def thawed(domain: Domain) -> Iterator[None]:
    """Whatever happens, nothing stays frozen."""
    yield
    domain.virsh("domfsthaw")


def test_freeze_and_thaw(domain: Domain) -> None:
    assert domain.virsh("domfsfreeze").strip() == "Froze 3 filesystem(s)"
    writers = [Writer(domain, "/root/written"), Writer(domain, "/mnt/data/written")]
    for writer in writers:
        writer.wait_until_blocked()
    assert domain.virsh("domfsthaw").strip() == "Thawed 3 filesystem(s)"
    assert [writer.wait().status for writer in writers] == [0, 0]


def test_freeze_of_one_filesystem(domain: Domain) -> None:
    shown = domain.virsh("domfsfreeze", "--mountpoint", "/mnt/data")
    assert shown.strip() == "Froze 1 filesystem(s)"
    assert can_write(domain, "/root/written")
    writer = Writer(domain, "/mnt/data/written")
    writer.wait_until_blocked()
    assert domain.virsh("domfsthaw").strip() == "Thawed 1 filesystem(s)"
    assert writer.wait().status == 0


@pytest.fixture
def base(domain: Domain) -> Iterator[Path]:
    """What a snapshot is taken of: the file of the data's disk, which it is again afterwards."""
    base = domain.disk("sdc")
    yield base
    domain.commit("sdc", base)
    if "kept" in domain.virsh("snapshot-list", "--name").split():
        domain.virsh("snapshot-delete", "kept", "--metadata")


def features(disk: Path) -> list[str]:
    """The features that an ext4 names in its superblock."""
    (line,) = (
        line
        for line in run(["dumpe2fs", "-h", str(disk)]).splitlines()
        if line.startswith("Filesystem features:")
    )
    return line.split()


def test_quiesced_snapshot(domain: Domain, base: Path) -> None:
    """What was written before it is whole, on a filesystem that needs no recovery."""
    domain.run(["/bin/sh", "-c", "echo not synchronised >/mnt/data/kept"])
    assert "needs_recovery" in features(base)
    # The root's disk lies over an image that is nobody's to write to.
    only_data = ["--diskspec", "vda,snapshot=no"]
    domain.virsh("snapshot-create-as", "kept", "--disk-only", "--quiesce", *only_data)
    assert domain.disk("sdc") != base
    assert "needs_recovery" not in features(base)
    assert run(["debugfs", "-R", "cat /kept", str(base)]) == "not synchronised\n"
    assert can_write(domain, "/root/written")
    assert can_write(domain, "/mnt/data/written")


FOLDER = "/run/given-up"
CONFIGURATION = f"""
[general]
fsfreeze-hook = {FOLDER}/hook
fsfreeze-exclude = /
fsfreeze-reply-timeout = 3
fsfreeze-orphan-timeout = 5
logfile = {FOLDER}/log
"""


@pytest.fixture
def impatient(domain: Domain) -> Iterator[Domain]:
    """An agent whose hook takes longer than libvirt waits."""
    domain.write_file(f"{FOLDER}/hook", "#!/bin/sh\n[ $1 = thaw ] || sleep 8\n", mode="755")
    domain.write_file(f"{FOLDER}/qemu-ga.conf", CONFIGURATION)
    options = ["-c", f"{FOLDER}/qemu-ga.conf"]
    with service.stopped(domain), service.by_hand(domain, *options):
        service.wait_for(domain.answers, "the agent")
        domain.virsh("guest-agent-timeout", "--timeout", "3")
        yield domain
        domain.virsh("guest-agent-timeout", "--timeout", "-2")
    service.wait_for(domain.answers, "the agent")


def test_a_freeze_that_libvirt_has_given_up(impatient: Domain) -> None:
    """Its snapshot has failed, and it sends no thaw, nor anything else."""
    options = ["--disk-only", "--quiesce", "--diskspec", "vda,snapshot=no"]
    with pytest.raises(LibvirtError, match=r"agent (is not responding|didn't respond)"):
        impatient.virsh("snapshot-create-as", "never", *options)
    told = (
        "none has asked for the status within 5 s (fsfreeze-orphan-timeout): thawed 2 filesystems"
    )
    service.wait_for(lambda: told in impatient.run(["cat", f"{FOLDER}/log"]).stdout, "the thaw")
    assert can_write(impatient, "/mnt/data/written")
