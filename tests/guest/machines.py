"""The machines that QEMU emulates for a guest, one for each architecture."""

from __future__ import annotations

import os
from typing import NamedTuple

# One thread for all of a guest's processors: with one for each, QEMU 7.2 may go on executing what
# the guest's kernel has patched since, and the guest hangs.  128 MiB of translated code: all that
# there is slows down every write to the page it came from, for minutes after a reset.
TCG = "tcg,thread=single,tb-size=128"
# Where KVM works, QGA_TEST_ACCEL=kvm makes everything here some ten times quicker.
ACCELERATOR = os.environ.get("QGA_TEST_ACCEL", TCG)

# `max` takes a sixth longer, with its wide registers and a string instruction that copies bytes one
# by one. rdrand: otherwise the kernel collects random numbers during the boot.
PLAIN = "Nehalem,+rdrand"


class Machine(NamedTuple):
    """A machine; `options` are QEMU's.

    arch: Debian's name of its architecture.
    bus: how the names of virtio devices end.
    console: the kernel's name of the device that `options` give it, whose chardev is `console`.
    serial: the place of the virtio-serial device, as on libvirt's command line.
    clock: what the kernel is told of its clocks.
    """

    arch: str
    program: str
    options: tuple[str, ...]
    bus: str
    console: str
    serial: str = ""
    clock: str = ""

    @property
    def kernel_options(self) -> str:
        return (
            f"root=/dev/vda rw console={self.console} loglevel=4 net.ifnames=0 mitigations=off "
            f"audit=0 init_on_alloc=0 systemd.show_status=false{self.clock}"
        )


AMD64 = Machine(
    "amd64",
    "qemu-system-x86_64",
    (
        *("-machine", "pc", "-accel", ACCELERATOR),
        *("-cpu", "host" if ACCELERATOR.startswith("kvm") else PLAIN),
        *("-smp", "2", "-m", "512,slots=2,maxmem=1G"),
        *("-device", "isa-serial,chardev=console,index=0"),
    ),
    bus="pci",
    console="ttyS0",
    serial=",bus=pci.0,addr=0x8",
    clock=" tsc=unstable",
)
ARM64 = Machine(
    "arm64",
    "qemu-system-aarch64",
    (
        *("-machine", "virt", "-accel", TCG, "-cpu", "cortex-a57", "-smp", "2", "-m", "512"),
        *("-serial", "chardev:console"),
    ),
    bus="pci",
    console="ttyAMA0",
)
S390X = Machine(
    "s390x",
    "qemu-system-s390x",
    (
        *("-machine", "s390-ccw-virtio", "-accel", TCG, "-cpu", "max", "-smp", "2", "-m", "512"),
        *("-device", "sclpconsole,chardev=console"),
    ),
    bus="ccw",
    console="ttysclp0",
)
MEASURED = AMD64._replace(options=tuple("max" if each == PLAIN else each for each in AMD64.options))
"""AMD64 for measurements, with the vector instructions that processors of today have.

It has no second serial port."""
PARALLEL = MEASURED._replace(
    options=tuple(each.replace("thread=single", "thread=multi") for each in MEASURED.options)
)
"""MEASURED with a thread for each processor, for measurements of what runs at the same time.

See TCG for why tests do without it."""
MACHINES = {machine.arch: machine for machine in (AMD64, ARM64, S390X)}
