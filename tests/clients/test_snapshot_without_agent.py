"""qgactl snapshot of a domain in which nothing runs: what libvirt does with its disks."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.image import run
from tests.integration.test_libvirt import qgactl

from .daemon import Libvirt

pytestmark = pytest.mark.timeout(900)

SIZE = 8 << 20
DOMAIN = """\
<domain type='qemu'>
  <name>empty</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{folder}/first.raw'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{folder}/second.raw'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='hda' bus='ide'/>
      <readonly/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
  </devices>
</domain>
"""


@pytest.fixture
def libvirt() -> Iterator[Libvirt]:
    # The path of a unix socket is short.
    with tempfile.TemporaryDirectory(prefix="qga-libvirt-") as name:
        folder = Path(name)
        libvirt = Libvirt(folder)
        libvirt.start()
        try:
            for disk in ("first", "second"):
                (folder / f"{disk}.raw").write_bytes(os.urandom(SIZE))
            (folder / "domain.xml").write_text(DOMAIN.format(folder=folder))
            libvirt.virsh("define", str(folder / "domain.xml"))
            libvirt.virsh("start", "empty")
            yield libvirt
        finally:
            libvirt.end()


def snapshot(libvirt: Libvirt, name: str, *words: str) -> tuple[int, str, str]:
    address = f"libvirt:{libvirt.uri}/empty"
    argv = ["--connect", address, "--json", "snapshot", str(libvirt.folder / name), *words]
    return qgactl(*argv)


def test_a_guest_without_an_agent_is_refused(libvirt: Libvirt) -> None:
    status, _, err = snapshot(libvirt, "refused")
    assert (status, "QEMU guest agent is not connected" in err) == (3, True)
    assert not (libvirt.folder / "refused").exists()


def test_a_crash_consistent_copy(libvirt: Libvirt) -> None:
    status, out, err = snapshot(libvirt, "copy", "--crash-consistent")
    assert status == 0, err
    assert err.startswith("qgactl: the snapshot is crash-consistent only: ")
    assert err.count("\n") == 1
    record = json.loads(out)
    assert (record["consistent"], "freeze" in record) == (False, False)
    assert "QEMU guest agent is not connected" in record["problem"]
    assert record["skipped"] == [{"name": "hda", "reason": "it has no medium"}]
    for source, copy in (("first", "vda"), ("second", "vdb")):
        run(
            [
                *("qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2"),
                str(libvirt.folder / f"{source}.raw"),
                str(libvirt.folder / f"copy/{copy}.qcow2"),
            ]
        )


def test_new_files_for_one_disk(libvirt: Libvirt) -> None:
    status, out, err = snapshot(libvirt, "new", "--crash-consistent", "--external", "--disk", "vdb")
    assert status == 0, err
    (disk,) = json.loads(out)["disks"]
    assert disk["base"] == str(libvirt.folder / "second.raw")
    shown = libvirt.virsh("domblklist", "empty")
    assert str(libvirt.folder / "new/vdb.qcow2") in shown
    assert str(libvirt.folder / "first.raw") in shown


def test_a_disk_that_is_not_there(libvirt: Libvirt) -> None:
    status, _, err = snapshot(libvirt, "none", "--crash-consistent", "--disk", "sda")
    assert status == 1
    assert err.endswith("the machine has no disk 'sda'; it has vda, vdb, hda\n")
    assert not (libvirt.folder / "none").exists()
