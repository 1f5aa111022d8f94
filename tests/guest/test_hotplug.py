"""Processors and memory that are added to a running guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.built import CHECKOUT

from .hardware import MEGABYTE
from .machines import AMD64
from .service import wait_for
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

RULE = "/usr/share/qga/80-online-hotplugged.rules"
# Under emulation the interrupt by which the kernel wakes a new processor may get lost (QEMU 7.2,
# Linux 6.1, one time in ten on a busy machine), and the write to `online` then hangs. A processor
# that does not sleep needs no such interrupt.
SLEEPLESS = AMD64._replace(clock=f"{AMD64.clock} idle=poll")


def room(_folder: Path) -> list[str]:
    return ["-smp", "2,maxcpus=4"]


@pytest.fixture
def larger() -> Iterator[Guest]:
    with Guest(room, machine=SLEEPLESS) as machine:
        yield machine


def test_what_is_added_comes_online_by_the_rule(larger: Guest) -> None:
    """Without it, it does not; what was added before does when udev is asked to look again."""
    add_processor(larger)
    add_memory(larger, "first")
    wait_for(lambda: cpus(larger, "present") == "0-2", "a processor")
    wait_for(lambda: "offline" in memory(larger), "memory")
    assert cpus(larger, "online") == "0-1"
    larger.write_file(RULE, (CHECKOUT / "packaging/udev" / Path(RULE).name).read_text())
    larger.run(["ln", "-s", RULE, "/etc/udev/rules.d/"])
    larger.run(["udevadm", "control", "--reload"])
    look = ["udevadm", "trigger", "--settle", "--action=add"]
    larger.run([*look, "--subsystem-match=cpu", "--subsystem-match=memory"])
    assert cpus(larger, "online") == "0-2"
    assert "offline" not in memory(larger)
    blocks = len(memory(larger))
    add_processor(larger)
    add_memory(larger, "second")
    wait_for(lambda: cpus(larger, "online") == "0-3", "another processor online")
    wait_for(lambda: memory(larger)[blocks:] == ["online"], "more memory online")


def add_processor(guest: Guest) -> None:
    free = [slot for slot in guest.qmp("query-hotpluggable-cpus") if "qom-path" not in slot]
    place = min(free, key=lambda slot: slot["props"]["socket-id"])
    guest.qmp("device_add", driver=place["type"], **place["props"])


def add_memory(guest: Guest, name: str) -> None:
    guest.qmp("object-add", qom_type="memory-backend-ram", id=name, size=128 * MEGABYTE)
    guest.qmp("device_add", driver="pc-dimm", id=f"dimm-{name}", memdev=name)


def cpus(guest: Guest, what: str) -> str:
    return guest.run(["cat", f"/sys/devices/system/cpu/{what}"]).stdout.strip()


def memory(guest: Guest) -> list[str]:
    """The states of the memory blocks."""
    script = "cat $(ls --sort=version -d /sys/devices/system/memory/memory*/state)"
    return guest.run(["/bin/sh", "-c", script]).stdout.split()
