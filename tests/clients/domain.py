"""The test guest as a domain of libvirt: the same image, the same hand inside, virsh outside."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from string import Template

from tests.guest.agent_socket import AgentSocket
from tests.guest.building import RootImage, progress, run
from tests.guest.image import code_image, root_image
from tests.guest.machines import TCG
from tests.guest.service import wait_for
from tests.guest.vm import BOOT_TIMEOUT, KERNEL_OPTIONS, ORIGINAL_PORT, Guest

from .daemon import Libvirt, LibvirtError

DATA_SIZE = 64 << 20
# QEMU for libvirt, which has no word for what one says to TCG.
EMULATOR = f"""\
#!/bin/sh
for argument; do
    shift
    [ "$argument" = tcg ] && argument={TCG}
    set -- "$@" "$argument"
done
exec qemu-system-x86_64 "$@"
"""
# Lays out the disk that is trimmed and looked into; it is mounted again at every boot.
MAKE_DATA = """
until disk=$(readlink -e /dev/disk/by-id/*DATA); do sleep 0.1; done
mkfs.ext4 -q "$disk"
mkdir /mnt/data
echo "$disk /mnt/data ext4 defaults 0 0" >>/etc/fstab
mount /mnt/data
"""


class Domain(Guest):
    """A guest that libvirt runs; use it as a context manager. image: makes what is booted."""

    def __init__(self, image: Callable[[], RootImage] = root_image) -> None:
        super().__init__(image=image)
        self.name = "guest"
        self.libvirt = Libvirt(self.folder)

    def do_boot(self) -> None:
        """Start libvirt, define the domain and start it."""
        image = self.image()
        self.libvirt.start()
        code_image(self.folder / "qga.ext4")
        base = ["-F", "raw", "-b", str(image.disk)]
        run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(self.folder / "root.qcow2")])
        data = self.folder / "data.raw"
        data.touch()
        os.truncate(data, DATA_SIZE)
        emulator = self.folder / "qemu"
        emulator.write_text(EMULATOR)
        emulator.chmod(0o755)
        definition = self.folder / "domain.xml"
        definition.write_text(self.definition(image))
        self.libvirt.virsh("define", str(definition))
        self.start()

    def make_data(self) -> None:
        """Mount the disk `sdc` at /mnt/data, now and at every boot."""
        self.run(["/bin/sh", "-ec", MAKE_DATA])

    def definition(self, image: RootImage) -> str:
        """What libvirt is told about the domain."""
        template = Template((Path(__file__).parent / "domain.xml").read_text())
        return template.substitute(
            name=self.name,
            kernel=image.kernel,
            initrd=image.initrd,
            options=KERNEL_OPTIONS,
            folder=self.folder,
            original=self.channel_path(ORIGINAL_PORT),
            console=self.console_log,
        )

    def start(self) -> None:
        """Switch the machine on and wait until it has booted."""
        progress("booting a domain of libvirt")
        self.virsh("start")
        self.wait_until_booted()

    def wait_until_booted(self) -> None:
        """Wait until both agents answer, the one under test by way of libvirt."""
        if self.original is not None:
            self.original.close()
        wait_for(self.is_connected, "both agents to be there", BOOT_TIMEOUT)
        self.original = AgentSocket(self.channel_path(ORIGINAL_PORT), timeout=60)
        self.original.sync()
        wait_for(self.answers, "the agent to answer")

    def is_connected(self) -> bool:
        """Whether both agents have their ports open, as libvirt knows from QEMU."""
        root = ET.fromstring(self.virsh("dumpxml"))
        targets = root.findall("devices/channel/target")
        return all(
            target.get("state") == "connected"
            for target in targets
            if "guest_agent" in target.attrib["name"]
        )

    def answers(self) -> bool:
        """Whether libvirt gets an answer from the agent."""
        try:
            return self.virsh("domhostname", "--source", "agent").strip() == "guest"
        except LibvirtError:
            return False

    def disk(self, target: str) -> Path:
        """The file on the host that is the disk of this name."""
        root = ET.fromstring(self.virsh("dumpxml"))
        source = root.find(f"devices/disk/target[@dev='{target}']/../source")
        assert source is not None
        return Path(source.attrib["file"])

    def commit(self, target: str, base: Path) -> None:
        """Write what a disk's snapshot has new into its base, if there is a snapshot."""
        if (overlay := self.disk(target)) != base:
            self.virsh("blockcommit", target, "--base", str(base), "--active", "--pivot")
            overlay.unlink()

    def state(self) -> str:
        """What libvirt says about the machine: running, shut off, pmsuspended."""
        return self.virsh("domstate").strip()

    def virsh(self, command: str, *argv: str) -> str:
        """Run a command of virsh on this domain; what it prints."""
        return self.libvirt.virsh(command, self.name, *argv)

    def on_end(self) -> None:
        self.libvirt.end()
        super().on_end()
