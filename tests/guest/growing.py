"""Small disks with a filesystem on each kind of layers, which are written to while they grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .agent_socket import AgentSocket
from .hardware import DISK, MEGABYTE, image
from .service import wait_for
from .vm import Guest

PASSPHRASE = "a phrase"


class Layers(NamedTuple):
    """A disk: MiB before and after, and what the guest makes of it.

    layers: what has to grow, from the bottom to the top.
    check: a program that finds faults in the unmounted filesystem, whose device is `device`.
    """

    before: int
    after: int
    setup: str
    layers: tuple[str, ...]
    check: str
    device: str


EXT4 = "e2fsck -fn"
XFS = "xfs_repair -n"
BTRFS = "btrfs check --readonly"
LUKS = "--batch-mode --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --key-file=/run/phrase"

DISKS = {
    "gpt": Layers(
        64,
        112,
        "table gpt size=16M; use ext4 ${disk}2",
        ("partition", "filesystem"),
        EXT4,
        "${disk}2",
    ),
    "mbr": Layers(
        48, 80, "table dos; use ext4 ${disk}1", ("partition", "filesystem"), EXT4, "${disk}1"
    ),
    "lvm": Layers(
        320,
        400,
        "table gpt; vgcreate -q a-group ${disk}1; "
        "lvcreate -qyW n -l 100%FREE -n a-volume a-group; use xfs /dev/a-group/a-volume",
        ("partition", "physical-volume", "logical-volume", "filesystem"),
        XFS,
        "/dev/a-group/a-volume",
    ),
    "luks": Layers(
        128,
        288,
        f"table dos; cryptsetup luksFormat --type=luks1 {LUKS} ${{disk}}1; "
        "cryptsetup open --key-file=/run/phrase ${disk}1 luks; use btrfs /dev/mapper/luks",
        ("partition", "crypt", "filesystem"),
        BTRFS,
        "/dev/mapper/luks",
    ),
    "luks2": Layers(
        64,
        128,
        f"table gpt; cryptsetup luksFormat --type=luks2 {LUKS} ${{disk}}1; "
        "cryptsetup open --key-file=/run/phrase ${disk}1 luks2; vgcreate -q b-group "
        "/dev/mapper/luks2; lvcreate -qyW n -l 100%FREE -n volume b-group; "
        "use ext4 /dev/b-group/volume",
        ("partition", "crypt", "physical-volume", "logical-volume", "filesystem"),
        EXT4,
        "/dev/b-group/volume",
    ),
}
SCRIPT = (
    DISK
    + rf"""
printf %s '{PASSPHRASE}' >/run/phrase
"""
    + r"""
begin() {
    name=$1
    until [ "$(disk $name)" ]; do sleep 0.1; done
    disk=$(disk $name)
}
table() {
    printf 'label: %s\n%s\n,\n' "$1" "${2:-}" | sed '/^$/d' | sfdisk --quiet --wipe=always $disk
    udevadm settle
}
use() {
    mkfs -t $1 -q "$2" >/dev/null
    mkdir -p "/mnt/$name"
    mount "$2" "/mnt/$name"
}
"""
)

# Writes to each mount point until it is told to stop: files that begin with the checksum of the
# rest. It counts the files, and ends with an error if it was given one.
LOAD = r"""
import hashlib, os, sys, threading, time
def write(place):
    number, name = 0, os.path.basename(place)
    while not os.path.exists("/run/load/stop"):
        data = os.urandom(20000)
        with open(f"{place}/new", "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{place}/new", f"{place}/{number % 100}")
        number += 1
        with open(f"/run/load/new-{name}", "w") as file:
            file.write(str(number))
        os.rename(f"/run/load/new-{name}", f"/run/load/{name}")
        time.sleep(0.05)
os.mkdir("/run/load")
threads = [threading.Thread(target=write, args=[place]) for place in sys.argv[1:]]
failures = []
threading.excepthook = failures.append
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(str(failures) if failures else 0)
"""
DAMAGED = r"""
import hashlib, os, sys
for place in sys.argv[1:]:
    names = [name for name in os.listdir(place) if name.isdigit()]
    assert len(names) > 10, (place, names)
    for name in names:
        with open(f"{place}/{name}", "rb") as file:
            checksum, data = file.read(32), file.read()
        if hashlib.sha256(data).digest() != checksum:
            print(place, name)
"""


# Filesystems that cannot grow, in files of the guest. Some of these disks have 4 KiB sectors.
REFUSED = r"""
modprobe loop max_loop=16
file() {
    truncate -s $2 /var/tmp/$1
    disk=$(losetup --show --find --partscan --sector-size ${3:-512} /var/tmp/$1)
    name=$1
}
larger() {
    truncate -s $1 /var/tmp/$name
    losetup --set-capacity $disk
}
file first 32M 4096
table gpt size=8M
use ext4 ${disk}p1
larger 48M
file other 8M
use ext2 $disk
file logical 48M
printf 'label: dos\na1:size=8M\na2:size=24M,type=5\na5:size=8M\na6:size=8M\n' |
    sfdisk --quiet $disk
udevadm settle
use ext4 ${disk}p6
name=primary
use ext4 ${disk}p1
name=logical
larger 64M
file one 128M
one=$disk
file two 128M
mkfs.btrfs --quiet $one $disk
udevadm settle
mkdir -p /mnt/two
mount $one /mnt/two
file half 32M
half=$disk
file raid 32M
mdadm --quiet --create /dev/md7 --run --assume-clean --level=1 --raid-devices=2 $half $disk
use ext4 /dev/md7
file thin 64M
vgcreate --quiet thin $disk
lvcreate --quiet --size=24M --thin thin/pool --virtualsize=16M --name=volume
use ext4 /dev/thin/volume
larger 96M
file locked 16M
use ext4 $disk
mount -o remount,ro /mnt/locked
file whole 16M 4096
use ext4 $disk
larger 24M
file gap 64M 4096
printf 'label: gpt\nsize=8M\nstart=10240,size=8M\n' | sfdisk --quiet $disk
udevadm settle
use ext4 ${disk}p1
mkdir -p /mnt/hidden
mount --bind /mnt/whole /mnt/hidden
mount --make-private /mnt/hidden
mount -t tmpfs none /mnt/hidden
file errors 16M
use ext4 $disk
larger 24M
echo 1 >/sys/fs/ext4/${disk#/dev/}/trigger_fs_error
file blocks 8M
use "ext4 -b 1024 -O ^64bit" $disk
larger 5T
file fixed 16M
use ext4 $disk
larger 24M
blockdev --setro $disk
file small 120M
use btrfs $disk
larger 200M
file busy 320M
use btrfs $disk
larger 400M
for try in $(seq 20); do
    btrfs balance start --full-balance --background /mnt/busy >/dev/null
    ! btrfs balance pause /mnt/busy 2>/dev/null || break
done
file rest 32M
rest=$disk
file lost 32M
vgcreate --quiet lost $disk $rest
lvcreate --quiet --size=16M --name=volume lost $disk
use ext4 /dev/lost/volume
larger 64M
losetup --detach $rest
file unknown 16M
dmsetup create --uuid=LVM-unknown --table="0 32768 linear $disk 0" unknown
use ext4 /dev/mapper/unknown
mkdir -p /mnt/covered/below /mnt/covered/gone
mount --bind /mnt/whole /mnt/covered/below
mount --bind /mnt/whole /mnt/covered/gone
mount -t tmpfs none /mnt/covered
mkdir /mnt/covered/below
modprobe scsi_debug dev_size_mb=16 add_host=2 per_host_store=1
udevadm settle
for name in pulled beneath; do
    disk=$(lsblk --noheadings --nodeps --paths --output=NAME,MODEL | grep -m 1 scsi_debug)
    disk=${disk%% *}
    if [ $name = beneath ]; then
        head -c 32 /dev/zero | cryptsetup open --type=plain --key-file=- $disk beneath
        use ext4 /dev/mapper/beneath
    else
        use ext4 $disk
    fi
    sync
    echo 1 >/sys/block/${disk#/dev/}/device/delete
done
"""


def hardware(folder: Path) -> list[str]:
    """QEMU's arguments for the disks, whose files are made in `folder`.

    One disk is SCSI, whose kernel is told of its size in another way.
    """
    argv = ["-device", "virtio-scsi-pci,id=scsi0"]
    for name, disk in DISKS.items():
        path = image(folder, name)
        path.touch()
        with path.open("r+b") as file:
            file.truncate(disk.before * MEGABYTE)
        argv += ["-blockdev", f"file,node-name={name}-file,filename={path}"]
        argv += ["-blockdev", f"raw,node-name={name},file={name}-file"]
        kind = "scsi-hd,bus=scsi0.0" if name == "mbr" else "virtio-blk-pci"
        argv += ["-device", f"{kind},drive={name},serial={name}"]
    return argv


def set_up(guest: Guest) -> None:
    """Make the filesystems, each at /mnt/NAME, and write to them."""
    each = "".join(f"begin {name}; {disk.setup}\n" for name, disk in DISKS.items())
    guest.run(["/bin/sh", "-ec", SCRIPT + each], timeout=300)
    guest.write_file("/var/tmp/load.py", LOAD)
    unit = ["systemd-run", "--unit=load", "--remain-after-exit"]
    guest.run([*unit, "python3", "/var/tmp/load.py", *(f"/mnt/{name}" for name in DISKS)])
    for name in DISKS:
        wait_for(lambda name=name: written(guest, name) > 10, f"{name} to be written to")  # type: ignore[misc]


def set_up_refused(guest: Guest) -> None:
    guest.run(["/bin/sh", "-ec", SCRIPT + REFUSED], timeout=300)


def written(guest: Guest, name: str) -> int:
    """How many files were written."""
    return int(guest.run(["cat", f"/run/load/{name}"], check=False).stdout or 0)


def end_load(guest: Guest) -> str:
    """Stop writing; returns how that has ended for systemd."""
    guest.run(["touch", "/run/load/stop"])
    show = ["systemctl", "show", "--property=SubState,Result", "--value", "load"]
    wait_for(lambda: "running" not in guest.run(show).stdout, "the writers to end")
    return " ".join(guest.run(show).stdout.split())


def damaged(guest: Guest) -> str:
    """The files whose content is not what was written."""
    return guest.python(DAMAGED, *(f"/mnt/{name}" for name in DISKS))


def check(guest: Guest, name: str) -> None:
    """Unmount a filesystem, and let its own program look for faults. Raises GuestError."""
    disk = DISKS[name]
    script = f"begin {name}; umount /mnt/{name}; {disk.check} {disk.device}"
    guest.run(["/bin/sh", "-ec", SCRIPT + script], timeout=200)


def enlarge(guest: Guest, name: str, size: int = 0) -> None:
    """Make a disk larger, and wait until the guest has noticed.

    size: MiB, by default `after`. A disk that has this size becomes larger, too.
    """
    look = DISK + f'lsblk --nodeps --bytes --noheadings --output=SIZE "$(disk {name})"'

    def seen() -> int:
        return int(guest.run(["/bin/sh", "-ec", look]).stdout)

    wanted = max((size or DISKS[name].after) * MEGABYTE, seen() + 16 * MEGABYTE)
    guest.qmp("block_resize", node_name=name, size=wanted)
    wait_for(lambda: seen() == wanted, f"{name} to be larger")


def grow(agent: AgentSocket, mountpoint: str, **arguments: Any) -> Any:
    return agent.execute("qga-grow-filesystem", mountpoint=mountpoint, **arguments)
