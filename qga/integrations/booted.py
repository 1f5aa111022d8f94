"""A guest that is booted for tests by plain QEMU, which has its image's disk to itself."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from qga.client import AgentError, GuestAgent, Summary, copy_from, copy_to
from qga.client.hosts.channel import CONTROLLER, option
from qga.client.hosts.processes import AGENT_PORT
from qga.client.hosts.qmp import Qmp
from qga.integrations import ANSWER_PATIENCE
from qga.integrations.virtual_machine import GuestError, VirtualMachine

PORTS = (AGENT_PORT, "org.qga.data.0")

QCOW2 = b"QFI\xfb"

NO_IMAGE = (
    "the fixture `guest` has no image to boot: use --guest-image, the key `guest_image` of "
    "pytest's configuration, or @pytest.mark.guest(image=PATH)"
)

# Seconds for one attempt to reach an agent that may not run yet, and between two.
ATTEMPT_PATIENCE, PAUSE = 3.0, 0.2

# Seconds for QEMU to write or read the memory of a large machine.
SAVE_PATIENCE = 600.0

NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


class Machine(NamedTuple):
    """What to boot.

    memory: in MiB. accelerator: names for QEMU's -accel, the best first, with colons between them.
    timeout: seconds until the agent answers.
    """

    image: Path
    memory: int = 1024
    arguments: Sequence[str] = ()
    accelerator: str = "kvm:tcg"
    program: str = "qemu-system-x86_64"
    timeout: float = 300.0

    @classmethod
    def of(cls, directory: Path, given: Mapping[str, Any]) -> Machine:
        """Check what is given, as text or as it is. Relative paths start in `directory`."""
        if "image" not in given:
            raise GuestError(NO_IMAGE)
        machine = cls(**{**given, "image": directory / given["image"]})
        if not machine.image.is_file():
            raise GuestError(f"{machine.image}: no such image of a disk")
        if shutil.which(machine.program) is None:
            raise GuestError(f"{machine.program} is not installed (Debian: qemu-system)")
        try:
            return machine._replace(memory=int(machine.memory), timeout=float(machine.timeout))
        except ValueError as error:
            raise GuestError(f"memory and timeout of the guest are numbers: {error}") from None


class BootedGuest(GuestAgent):
    """The agent of a guest, with what only its machine can do."""

    def __init__(self, machine: BootedMachine) -> None:
        super().__init__(f"unix:{machine.socket(AGENT_PORT)}", ANSWER_PATIENCE)
        self.machine = machine

    def save(self, name: str = "saved") -> None:
        """Keep the state of the whole machine, memory and disks, until the machine ends."""
        self.machine.monitor("savevm", name)

    def restore(self, name: str = "saved") -> None:
        """Return to a saved state. `resync` then sets the clock of the guest."""
        self.machine.monitor("loadvm", name)

    def copy_to(self, paths: str | Sequence[str], destination: str, **how: Any) -> Summary:
        """Copy files into the guest; see qga.client.copy_to. CopyError if any is skipped."""
        given = [paths] if isinstance(paths, str) else paths
        return copy_to(self, given, destination, **how).require_all()

    def copy_from(self, paths: str | Sequence[str], destination: str, **how: Any) -> Summary:
        """Copy files of the guest to this machine; see qga.client.copy_from."""
        given = [paths] if isinstance(paths, str) else paths
        return copy_from(self, given, destination, **how).require_all()

    def console(self) -> str:
        """The last lines of the guest's console."""
        return self.machine.console_tail()


class BootedMachine(VirtualMachine):
    def __init__(self, wanted: Machine) -> None:
        super().__init__()
        self.wanted = wanted
        self.guest = BootedGuest(self)

    def socket(self, port: str) -> str:
        return str(self.folder / port)

    def do_boot(self) -> None:
        self.start_qemu(self.arguments)
        deadline = time.monotonic() + self.wanted.timeout
        while not self._answers():
            if self.has_ended():
                raise OSError("QEMU has exited")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no agent answered within {self.wanted.timeout:g} s")
            time.sleep(PAUSE)

    def _answers(self) -> bool:
        try:
            self.guest.sync(timeout=ATTEMPT_PATIENCE)
        except AgentError:
            return False
        return True

    def arguments(self, descriptor: int) -> list[str]:
        """The command line of QEMU, whose monitor listens on this descriptor."""
        argv = [self.wanted.program, *self.monitor_options(descriptor), *self.console_options()]
        for accelerator in self.wanted.accelerator.split(":"):
            argv += ["-accel", accelerator]
        argv += ["-cpu", "max", "-m", str(self.wanted.memory)]
        argv += ["-serial", "chardev:console", "-no-reboot"]
        argv += ["-nic", "user,model=virtio-net-pci,restrict=on"]
        drive = {"if": "virtio", "format": format_of(self.wanted.image), "snapshot": "on"}
        argv += ["-drive", option(f"file={quoted(self.wanted.image)}", drive)]
        argv += ["-device", f"virtio-serial-pci,id={CONTROLLER}"]
        for number, port in enumerate(PORTS, 1):
            path = quoted(self.socket(port))
            argv += ["-chardev", f"socket,id=port{number},path={path},server=on,wait=off"]
            argv += ["-device", f"virtserialport,nr={number},chardev=port{number},name={port}"]
        return [*argv, *self.wanted.arguments]

    def monitor(self, command: str, name: str) -> None:
        """Let QEMU save or load a state. Raises GuestError if it cannot."""
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a state, such as 'clean'")
        arguments = {"command-line": f"{command} {name}"}
        with Qmp(self.qmp_path, ANSWER_PATIENCE) as qmp:
            said = qmp.execute("human-monitor-command", arguments, seconds=SAVE_PATIENCE)
            if said:
                qmp.execute("cont")  # after a loadvm that fails, the machine stands still
                raise GuestError(f"QEMU: {command} {name}: {str(said).strip()}")

    def on_end(self) -> None:
        self.guest.close()


@contextmanager
def booted(wanted: Machine) -> Iterator[BootedGuest]:
    """Boot a machine, and end it whatever happens. Raises GuestError if it does not boot."""
    with BootedMachine(wanted) as machine:
        yield machine.guest


def format_of(image: Path) -> str:
    with image.open("rb") as file:
        return "qcow2" if file.read(len(QCOW2)) == QCOW2 else "raw"


def quoted(path: object) -> str:
    """A path as a value among QEMU's options."""
    return str(path).replace(",", ",,")
