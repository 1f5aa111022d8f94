"""Disks, mounts and routes of machines that no test guest is."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.differences import differs
from tests.differential.agents import OURS, SUITES, original
from tests.differential.requests import call
from tests.differential.stand_ins import Sysfs, among, mount_table
from tests.differential.test_process import started

both_versions = pytest.mark.parametrize("version", SUITES)

PCI = "pci0000:00/0000:00"
HYPERV = "LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/0000f8b3-1e82-4818-a1c3-63d806ec15bb"
ATA = f"{PCI}:1f.2/ata3/host4/target4:0:0/4:0:0:0"
SAS = f"{PCI}:03.0/host12/port-12:0/end_device-12:0"

DRIVERS = """
ahci 1f.2
ata_piix 01.1
megaraid_sas 0d.0
mpt3sas 03.0
nvme 08.0
pata_sil680 16.0
pcieport 1e.0
sata_sil24 12.0
sdhci-pci 0b.0
sym53c8xx 0c.0
virtio-pci 05.0
virtio-pci 06.0
virtio-pci 1e.0/0000:02:07.0
vmw_pvscsi 15.0
xhci_hcd 14.0
"""
OTHER_DRIVERS = {
    "pci0001:00/0001:00:01.0": "virtio-pci",
    "platform/4010000000.pcie/pci0000:00/0000:00:02.0": "virtio-pci",
    "platform/80000000.sata": "ahci_platform",
}

SAME = [
    f"{PCI}:05.0/virtio2/block/vda",
    f"{PCI}:1e.0/0000:02:07.0/virtio3/block/vdb",
    "pci0001:00/0001:00:01.0/virtio8/block/vdc",
    "platform/a003e00.virtio_mmio/virtio0/block/vdd",
    f"{PCI}:06.0/virtio3/host2/target2:0:0/2:0:0:5/block/sda",
    f"{ATA}/block/sdb",
    f"{PCI}:01.1/ata1/host0/target0:0:1/0:0:1:0/block/sdc",
    f"{PCI}:08.0/nvme/nvme0/nvme0n1",
    f"{PCI}:0c.0/host17/target17:0:3/17:0:3:0/block/sdd",
    "css0/0.0.0007/0.0.1a2b/virtio4/block/vdf",
    "css0/0.2.00a0/0.2.0f01/virtio5/host21/target21:0:0/21:0:0:0/block/sde",
    "css0/0.0.0009/0.0.0abc/block/dasda",
    "platform/floppy.0/block/fd0",
]

NONE = (-1, -1, -1, -1)
OTHER = {
    # bus type, bus, target, unit, PCI controller
    f"{PCI}:06.0/virtio3/host2/target2:0:1/2:0:1:0/block/sdf": ("scsi", 0, 1, 0, (0, 0, 6, 0)),
    f"{PCI}:06.0/virtio3/host2/target2:0:3/2:0:3:16684/block/sdg": (
        *("scsi", 0, 3, 300),
        (0, 0, 6, 0),
    ),
    "platform/4010000000.pcie/pci0000:00/0000:00:02.0/virtio1/block/vde": (
        *("virtio", 0, 0, 0),
        (0, 0, 2, 0),
    ),
    f"{PCI}:0d.0/host18/target18:2:1/18:2:1:0/block/sdh": ("scsi", 2, 1, 0, (0, 0, 13, 0)),
    f"{PCI}:15.0/host19/target19:0:0/19:0:0:0/block/sdi": ("scsi", 0, 0, 0, (0, 0, 21, 0)),
    f"{SAS}/target12:0:4/12:0:4:0/block/sdj": ("scsi", 0, 4, 0, (0, 0, 3, 0)),
    f"{HYPERV}/host11/target11:0:1/11:0:1:0/block/sdk": ("scsi", 0, 1, 0, NONE),
    "platform/host13/session1/target13:0:0/13:0:0:1/block/sdl": ("scsi", 0, 0, 1, NONE),
    f"{PCI}:12.0/ata10/host30/target30:0:0/30:0:0:0/block/sdm": ("sata", 0, 0, 0, (0, 0, 18, 0)),
    "platform/80000000.sata/ata12/host32/target32:0:0/32:0:0:0/block/sdn": ("sata", 0, 0, 0, NONE),
    f"{PCI}:16.0/ata14/host34/target34:0:1/34:0:1:0/block/sdo": ("ide", 0, 0, 1, (0, 0, 22, 0)),
    f"{PCI}:0b.0/mmc_host/mmc1/mmc1:0001/block/mmcblk1": ("mmc", 0, 0, 0, (0, 0, 11, 0)),
    "vbd-51712/block/xvda": ("xen", 0, 0, 0, NONE),
}


def ask(
    tmp_path: Path, version: str, stand_ins: Mapping[str, Path], command: str
) -> tuple[Any, Any]:
    """What the original and ours return, or the text of their errors."""
    replies = []
    for program in (original(version), OURS):
        folder = Path(mkdtemp(dir=tmp_path))  # the path of a socket must be short
        with started(among(stand_ins, program), folder) as agent:
            reply = json.loads(agent.play(call(command)))
            replies.append(reply.get("return", reply.get("error", {}).get("desc")))
    return replies[0], replies[1]


def place(address: dict[str, Any]) -> tuple[Any, ...]:
    pci = tuple(address["pci-controller"][each] for each in ("domain", "bus", "slot", "function"))
    return (*(address[each] for each in ("bus-type", "bus", "target", "unit")), pci)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    made = Sysfs(tmp_path / "sys")
    for line in DRIVERS.split("\n")[1:-1]:
        name, slot = line.split()
        made.driver(f"{PCI}:{slot}", name)
    for device, name in OTHER_DRIVERS.items():
        made.driver(device, name)
    (made.folder / "class/spi_host/host17").mkdir()
    return made


@differs("kinds-of-disks", "scsi-target", "pci-below-platform")
@both_versions
def test_places_of_disks(tmp_path: Path, version: str, sysfs: Sysfs) -> None:
    for path in (*SAME, *OTHER):
        sysfs.add(path)
    theirs, ours = ask(tmp_path, version, {"/sys": sysfs.folder}, "guest-get-disks")
    assert [each["name"] for each in ours] == [each["name"] for each in theirs]
    differing = {f"/dev/{path.rpartition('/')[2]}": where for path, where in OTHER.items()}
    for their, our in zip(theirs, ours):
        expected = differing.get(our["name"])
        if expected is None:
            assert our == their
        else:
            assert place(our["address"]) == expected != place(their["address"])


VOLUMES = """
dm-0 vda1
dm-1 vda1
dm-2 dm-0 dm-1
dm-3 vdb vda2
dm-4 dm-3 dm-2 vda1
md1 dm-0 vdb
md2
cciss!c0d0 vdb
"""


@differs("partitions-of-arrays", "names-of-volumes")
@both_versions
def test_volumes(tmp_path: Path, version: str, sysfs: Sysfs) -> None:
    for path in (SAME[0], f"{SAME[0]}/vda1", f"{SAME[0]}/vda2", SAME[1]):
        sysfs.add(path)
    for line in VOLUMES.split("\n")[1:-1]:
        name, *members = line.split()
        sysfs.add(f"virtual/block/{name}", *members, alias="a" if "dm-" in name else "")
    sysfs.add("virtual/block/md1/md1p1")
    mounts = {"/sys": sysfs.folder, "/proc/self/mountinfo": sysfs.mounts(tmp_path)}
    theirs, ours = ask(tmp_path, version, mounts, "guest-get-disks")
    assert {each.pop("alias", None) for each in ours} == {None, "a"}
    assert ours == theirs
    theirs, ours = ask(tmp_path, version, mounts, "guest-get-fsinfo")
    of_partition = [
        [each.pop("disk") for each in reply if each["name"] == "md1p1"] for reply in (theirs, ours)
    ]
    assert of_partition[0] == [[]]
    assert sorted(each["dev"] for each in of_partition[1][0]) == ["/dev/vda1", "/dev/vdb"]
    assert ours == theirs


NAMES = [
    *(rb"a\040b", rb"a\012b", rb"a\134b", rb"a\011b", rb"a\043b", rb"a\134040b", b"a//deleted"),
    *(b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"\x7f", b"\x01", b'"', b"~"),
    *(b"\xc4\xe3\xba\xc3", b"gr\xfc\xdf", b"\xed\xa0\x80", b"\xf0\x9f\xbf\xbf", b"\xef\xbf\xbe"),
    *(b"\xf4\x90\x80\x80", b"\xc1\xbf", b"\xe2\x82", b"\xf0\x9f\x98"),
]


@both_versions
def test_names_of_mount_points(tmp_path: Path, version: str) -> None:
    theirs, ours = mount_points(tmp_path, version, NAMES)
    assert len(ours) == len(NAMES)
    assert ours == theirs


@differs("odd-mounts")
@both_versions
@pytest.mark.parametrize("mark", [b"\r", b"\v", b"\f"])
def test_names_that_the_original_cuts(tmp_path: Path, version: str, mark: bytes) -> None:
    theirs, ours = mount_points(tmp_path, version, [b"a%sb" % mark])
    assert (theirs, ours) == (["/nowhere/a"], [f"/nowhere/a{mark.decode()}b"])


@differs("odd-mounts")
@both_versions
def test_a_type_with_a_blank(tmp_path: Path, version: str) -> None:
    table = mount_table(tmp_path, [("240:1048000", "/nowhere")], rb"fuseblk.a\040b")
    replies = ask(tmp_path, version, {"/proc/self/mountinfo": table}, "guest-get-fsinfo")
    assert [each["type"] for [each] in replies] == [r"fuseblk.a\040b", "fuseblk.a b"]


def mount_points(tmp_path: Path, version: str, names: list[bytes]) -> tuple[list[str], list[str]]:
    mounts = [(f"240:{1048000 + at}", b"/nowhere/" + name) for at, name in enumerate(names)]
    stand_ins = {"/proc/self/mountinfo": mount_table(tmp_path, mounts)}
    theirs, ours = ask(tmp_path, version, stand_ins, "guest-get-fsinfo")
    return [each["mountpoint"] for each in theirs], [each["mountpoint"] for each in ours]


ROUTES = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
)


@differs("routes-without-ipv6")
def test_routes_of_a_kernel_without_ipv6(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text(ROUTES)
    stand_ins = {"/proc/self/net": tmp_path / "net"}
    theirs, ours = ask(tmp_path, "11.1", stand_ins, "guest-network-get-route")
    assert theirs == 'open("/proc/net/ipv6_route"): No such file or directory'
    assert [(each["iface"], each["gateway"]) for each in ours] == [("eth0", "10.0.2.1")]


@differs("log-of-requests")
@both_versions
def test_what_syslog_gets(tmp_path: Path, version: str) -> None:
    heard = []
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/null").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "dev/log"))
        stand_ins = {str(tmp_path / "dev/null"): Path("/dev/null"), "/dev": tmp_path / "dev"}
        for program, name in ((original(version), "original"), (OURS, "ours")):
            with started(among(stand_ins, program), tmp_path / name) as agent:
                agent.play(call("guest-exec", '"path":"/bin/true"'))
                heard.append([re.sub(r"^(<\d+>).{15} ", r"\1", each) for each in messages(syslog)])
    theirs, ours = heard
    assert theirs[0] == '<14>qemu-ga: info: guest-exec called: "/bin/true"'
    assert set(theirs[1:]) == {"<14>qemu-ga: info: guest-ping called"}  # that of `play`
    [entry] = ours
    assert re.match(r"<30>qemu-ga\[\d+\]: channel main \(.*\): guest-exec .*: done", entry)


def messages(syslog: socket.socket) -> Iterator[str]:
    while True:
        try:
            yield syslog.recv(8192, socket.MSG_DONTWAIT).decode()
        except BlockingIOError:
            return
