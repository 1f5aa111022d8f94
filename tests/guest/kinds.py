"""Every kind of network interface and disk that Linux and QEMU offer without real hardware."""

from __future__ import annotations

from pathlib import Path

MEGABYTE = 1 << 20
DRIVES = (
    *("bridged", "usb", "uas", "usb-cd", "ide", "ide-cd", "ahci", "scsi", "scsi-cd", "parallel"),
    *("megaraid", "pvscsi", "card", "nvme", "shared", "private"),
)
# Two controllers of one NVMe subsystem share a disk: it has two paths.
DEVICES = (
    "pci-bridge,id=bridge,chassis_nr=1,addr=0x10",
    "virtio-blk-pci,bus=bridge,addr=0x3,drive=bridged,serial=BRIDGED",
    "qemu-xhci,id=usb0,addr=0x14",
    "usb-storage,bus=usb0.0,drive=usb,serial=USB",
    "usb-uas,bus=usb0.0,id=uas0",
    "scsi-hd,bus=uas0.0,scsi-id=0,lun=0,drive=uas,serial=UAS",
    "usb-bot,bus=usb0.0,id=bot0",
    "scsi-cd,bus=bot0.0,scsi-id=0,lun=0,drive=usb-cd",
    "ide-hd,bus=ide.0,unit=1,drive=ide,serial=IDE",
    "ide-cd,bus=ide.1,unit=0,drive=ide-cd",
    "ich9-ahci,id=ahci0,addr=0x12",
    "ide-hd,bus=ahci0.2,drive=ahci,serial=AHCI",
    "virtio-scsi-pci,id=scsi0,addr=0x11",
    "scsi-hd,bus=scsi0.0,channel=0,scsi-id=3,lun=1,drive=scsi,serial=SCSI",
    "scsi-cd,bus=scsi0.0,channel=0,scsi-id=1,lun=2,drive=scsi-cd",
    "lsi53c895a,id=parallel0,addr=0x15",
    "scsi-hd,bus=parallel0.0,scsi-id=4,lun=0,drive=parallel,serial=PARALLEL",
    "megasas,id=megaraid0,addr=0x16",
    "scsi-hd,bus=megaraid0.0,scsi-id=2,lun=0,drive=megaraid,serial=MEGARAID",
    "pvscsi,id=pvscsi0,addr=0x18",
    "scsi-hd,bus=pvscsi0.0,scsi-id=5,lun=0,drive=pvscsi,serial=PVSCSI",
    "sdhci-pci,id=sdhci0,addr=0x1c",
    "sd-card,drive=card",
    "nvme,addr=0x13,drive=nvme,serial=NVME",
    "nvme-subsys,id=subsystem0,nqn=subsystem0",
    "nvme,id=nvme1,addr=0x1a,serial=PATHS,subsys=subsystem0",
    "nvme,id=nvme2,addr=0x1b,serial=PATHS,subsys=subsystem0",
    "nvme-ns,drive=shared,bus=nvme1,nsid=1,shared=on",
    "nvme-ns,drive=private,bus=nvme2,nsid=2,shared=off",
)

# The types of ip-link(8), each with what it needs; those that this kernel does not have are
# passed over, and the test says which must be there.
LINKS = r"""
add() {
    kind=$1
    shift
    ip link add name "k-$kind" type "$kind" "$@" || echo "no $kind"
}
on_base() {
    kind=$1
    shift
    ip link add name "k-$kind" link k-base type "$kind" "$@" || echo "no $kind"
}
tunnel() {
    kind=$1
    shift
    case $kind in
    *6*) add "$kind" local 2001:db8::1 remote 2001:db8::2 "$@" ;;
    *) add "$kind" local 192.0.2.1 remote 192.0.2.2 "$@" ;;
    esac
}
ip link add k-base type dummy
ip link set k-base up
for kind in bridge bond team ifb nlmon vsockmon vcan wireguard batadv netkit; do
    add $kind
done
add vxcan peer name k-vxcan2
add veth peer name k-veth2
add vrf table 10
add vxlan id 7 dstport 4789 dev k-base
add geneve id 7 remote 192.0.2.9
add gtp role sgsn
add bareudp dstport 6635 ethertype ip
add xfrm dev k-base if_id 9
add hsr slave1 k-vxlan slave2 k-veth
on_base vlan id 5
on_base macvlan
on_base rmnet mux_id 1
ip link add k-macvtap link k-bridge type macvtap
ip link add k-ipvlan link k-team type ipvlan
ip link add k-ipvtap link k-ifb type ipvtap
ip link add k-macsec link k-bond type macsec
for kind in ipip sit gre gretap ip6tnl ip6gre ip6gretap; do
    tunnel $kind
done
tunnel vti key 3
tunnel vti6 key 3
tunnel erspan seq key 5 erspan_ver 1 erspan 1
tunnel ip6erspan seq key 6 erspan_ver 1 erspan 1
modprobe tun
ip tuntap add k-tun mode tun
ip tuntap add k-tap mode tap
for module in mac80211_hwsim fakelb netrom rose bpqether eql hdlc slip; do
    modprobe $module || echo "no $module"
done
"""
KINDS_OF_LINKS = (
    "bridge bond team ifb nlmon vsockmon vcan wireguard vxcan veth vrf vxlan geneve xfrm vlan "
    "macvlan macvtap ipvlan ipvtap macsec ipip sit gre gretap ip6tnl ip6gre ip6gretap vti vti6 "
    "erspan ip6erspan tun tap"
)
OTHER_LINKS = "wlan0 wpan0 nr0 rose0 bpq0 eql"

# A network block device, served by the kernel's client and this program: sectors of zeros.
NBD = r"""
import fcntl, os, socket, struct, threading
from systemd.daemon import notify
ours, theirs = socket.socketpair()
def serve():
    while len(request := ours.recv(28, socket.MSG_WAITALL)) == 28:
        _, kind, handle, _, length = struct.unpack(">IIQQI", request)
        if kind == 1:
            ours.recv(length, socket.MSG_WAITALL)
        ours.sendall(struct.pack(">IIQ", 0x67446698, 0, handle) + bytes(length * (kind == 0)))
threading.Thread(target=serve, daemon=True).start()
device = os.open("/dev/nbd0", os.O_RDWR)
for request, argument in ((0xAB01, 512), (0xAB07, 2048), (0xAB00, theirs.fileno())):
    fcntl.ioctl(device, request, argument)
notify("READY=1")
fcntl.ioctl(device, 0xAB03)
"""

# The kernel numbers NVMe controllers in the order in which they happen to be ready.
SERIAL = r"""
serial() {
    lsblk --nodeps --noheadings --paths --output=NAME,SERIAL | awk -v s="$1" '$2 == s { print $1 }'
}
"""
DISKS = (
    SERIAL
    + r"""
cd /run
modprobe loop max_loop=9
for number in 0 1 2 3 4 5 6 7; do
    truncate -s 8M disk$number
    losetup --partscan /dev/loop$number disk$number
done
modprobe scsi_debug dev_size_mb=8 max_luns=2
modprobe null_blk nr_devices=2 gb=1 memory_backed=1
modprobe brd rd_nr=2 rd_size=8192
modprobe zram
echo 8M >/sys/block/zram0/disksize
modprobe mtdram total_size=8192
modprobe mtdblock
modprobe nbd nbds_max=1
systemd-run --quiet --unit=nbd --service-type=notify /usr/bin/python3 /run/nbd.py
table() {
    name=$1
    shift
    dmsetup create "k-$name" --table "$*"
}
table linear 0 8192 linear /dev/loop0 0
table zero 0 8192 zero
table error 0 8192 error
table crypt 0 8192 crypt aes-xts-plain64 "$(printf %064d 1)" 0 /dev/loop1 0
table delay 0 8192 delay /dev/loop2 0 1
table flakey 0 8192 flakey /dev/loop2 8192 60 1
table striped 0 8192 striped 2 32 /dev/loop3 0 /dev/loop4 0
table mirror 0 8192 mirror core 1 1024 2 /dev/loop3 8192 /dev/loop4 8192
table origin 0 8192 snapshot-origin /dev/mapper/k-linear
table snapshot 0 8192 snapshot /dev/mapper/k-linear /dev/loop5 N 8
table meta 0 4096 linear /dev/loop6 0
table data 0 8192 linear /dev/loop6 4096
table pool 0 8192 thin-pool /dev/mapper/k-meta /dev/mapper/k-data 128 0
dmsetup message k-pool 0 "create_thin 0"
table thin 0 16384 thin /dev/mapper/k-pool 0
table multipath 0 8192 multipath 0 0 1 1 round-robin 0 1 1 /dev/nullb0 1000
table "a name" 0 128 linear /dev/ram1 0
wait_for() {
    what=$1
    shift
    deadline=$(($(cut -d. -f1 /proc/uptime) + 200))
    until [ "$("$@")" ]; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt $deadline ] || { echo "no $what" >&2; exit 1; }
        sleep 0.5
    done
}
both_namespaces() {
    [ "$(serial PATHS | wc -l)" = 2 ] && echo yes
}
wait_for "disk of the card reader" ls /dev/mmcblk0
wait_for "two namespaces of the NVMe controllers PATHS" both_namespaces
for disk in PARALLEL MEGARAID PVSCSI AHCI SCSI USB NVME; do
    wait_for "disk $disk" serial $disk
done
mdadm --quiet --create /dev/md5 --run --assume-clean --level=5 --raid-devices=3 \
    "$(serial PARALLEL)" "$(serial MEGARAID)" "$(serial PVSCSI)"
mdadm --quiet --create /dev/md6 --run --assume-clean --level=1 --metadata=1.2 --raid-devices=2 \
    "$(serial AHCI)" "$(serial SCSI)"
for disk in /dev/md6 /dev/loop7 /dev/mmcblk0 "$(serial USB)" "$(serial NVME)"; do
    printf 'label: gpt\nsize=2M\n' | sfdisk --quiet "$disk"
done
udevadm settle
use() {
    mkdir -p "/mnt/$1"
    mkfs.ext2 -q "/dev/$1"
    mount "/dev/$1" "/mnt/$1"
}
for device in md5 md6p1 loop7p1 mmcblk0p1 mapper/k-thin zram0 ram0 nullb1 mtdblock0; do
    use $device
done
for disk in "$(serial NVME)p1" $(serial PATHS); do
    use "${disk#/dev/}"
done
"""
)
KINDS_OF_DISKS = (
    "loop0 loop7p1 nullb0 ram0 zram0 mtdblock0 nbd0 dm-0 md5 md6p1 sr0 sr1 sr2 mmcblk0p1 vda"
)


def hardware(folder: Path) -> list[str]:
    """QEMU's arguments for a disk of each kind, whose files are made in `folder`."""
    argv = []
    for name in DRIVES:
        path = folder / f"{name}.img"
        path.touch()
        with path.open("r+b") as file:
            file.truncate(8 * MEGABYTE)
        argv += ["-drive", f"if=none,id={name},file={path},format=raw,cache=unsafe"]
    for device in DEVICES:
        argv += ["-device", device]
    return argv
