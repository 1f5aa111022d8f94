"""One disk of every kind that QEMU emulates, and the volumes that the guest builds on them.

    virtio-blk   behind a PCI bridge, two partitions: ext4, and an empty one
    virtio-scsi  two addresses that differ in target and unit: an md mirror with ext4;
                 one that gives trimmed blocks back to the host: ext4
    AHCI         two ports: an LVM volume over both, with xfs
    IDE          the second drive of the first channel: encrypted by dm-crypt, ext4
    NVMe         btrfs
    USB          ext4 on the whole disk

There is also an IDE drive without a medium, which does not count as a disk.
"""

from __future__ import annotations

from pathlib import Path

MEGABYTE = 1 << 20
# Bytes of each disk: sparse files, so that size costs nothing. xfs wants 300 MB, btrfs 109.
SIZES = {
    "virtio": 64,
    "mirror0": 64,
    "mirror1": 64,
    "trimmed": 64,
    "volume0": 160,
    "volume1": 192,
    "ide": 64,
    "nvme": 128,
    "usb": 64,
}
DEVICES = (
    "pci-bridge,id=bridge,chassis_nr=1,addr=0x10",
    "virtio-blk-pci,bus=bridge,addr=0x3,drive=virtio,serial=VIRTIO-1",
    "virtio-scsi-pci,id=scsi0,addr=0x11",
    "scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun=0,drive=mirror0,serial=MIRROR-0",
    "scsi-hd,bus=scsi0.0,channel=0,scsi-id=2,lun=3,drive=mirror1,serial=MIRROR-1",
    "scsi-hd,bus=scsi0.0,channel=0,scsi-id=5,lun=1,drive=trimmed,serial=TRIMMED",
    "ich9-ahci,id=ahci0,addr=0x12",
    "ide-hd,bus=ahci0.1,drive=volume0,serial=VOLUME-0",
    "ide-hd,bus=ahci0.4,drive=volume1,serial=VOLUME-1",
    "ide-hd,bus=ide.0,unit=1,drive=ide,serial=IDE-1",
    "ide-cd,bus=ide.1,unit=0",
    "nvme,id=nvme0,addr=0x13,drive=nvme,serial=NVME-1",
    "qemu-xhci,id=usb0,addr=0x14",
    "usb-storage,bus=usb0.0,drive=usb,serial=USB-1",
)
DISK = r"""
disk() {
    lsblk --nodeps --noheadings --paths --output=NAME,SERIAL |
        awk -v serial="$1" '$2 == serial { print $1 }'
}
"""
# The guest answers before it has found all of its disks and has an address. Looking more often
# keeps its emulated processors from finding them.
AWAIT = (
    DISK
    + r"""
for serial in VIRTIO-1 MIRROR-0 MIRROR-1 TRIMMED VOLUME-0 VOLUME-1 IDE-1 NVME-1 USB-1; do
    until [ "$(disk $serial)" ]; do sleep 0.5; done
done
until ip -4 -oneline address show dev eth0 | grep -q inet; do sleep 0.5; done
"""
)
# Lays the disks out and mounts them below /mnt, in this order.
SETUP = (
    DISK
    + r"""
use() {
    kind=$1 name=$2 device=$3
    shift 3
    mkdir -p "/mnt/$name"
    mkfs -t "$kind" "$@" -q "$device" >/dev/null
    mount "$device" "/mnt/$name"
}
virtio=$(disk VIRTIO-1)
printf 'label: gpt\nsize=32M\nsize=16M\n' | sfdisk --quiet "$virtio"
dmsetup create crypt --table "0 131072 crypt aes-xts-plain64 $(printf %064d 1) 0 $(disk IDE-1) 0"
mdadm --quiet --create /dev/md0 --run --assume-clean --metadata=1.2 --level=1 --raid-devices=2 \
    "$(disk MIRROR-0)" "$(disk MIRROR-1)"
vgcreate --quiet group "$(disk VOLUME-0)" "$(disk VOLUME-1)"
lvcreate --quiet --yes --extents=100%FREE --name=vol-ume group
mkfs.btrfs --quiet --label=the-nvme "$(disk NVME-1)"
mkdir -p /mnt/nvme && mount "$(disk NVME-1)" /mnt/nvme
use ext4 part "${virtio}1"
use ext4 mirror /dev/md0
# Zeroed in the background, the inode tables would take up blocks after the mount.
use ext4 trimmed "$(disk TRIMMED)" -E lazy_itable_init=0
use xfs volume /dev/group/vol-ume
use ext4 crypt /dev/mapper/crypt
use ext4 usb "$(disk USB-1)"
udevadm settle
"""
)


def disks(folder: Path) -> list[str]:
    """QEMU's arguments for the disks, whose files are created in `folder`."""
    argv = []
    for name, size in SIZES.items():
        path = image(folder, name)
        path.touch()
        with path.open("r+b") as file:
            file.truncate(size * MEGABYTE)
        options = "cache=unsafe,discard=unmap" if name == "trimmed" else "cache=unsafe"
        argv += ["-drive", f"if=none,id={name},file={path},format=raw,{options}"]
    for device in DEVICES:
        argv += ["-device", device]
    return argv


def image(folder: Path, name: str) -> Path:
    """The file on the host that is the disk `name`."""
    return folder / f"{name}.img"
