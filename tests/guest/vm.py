"""The running test guest: QEMU, and the ways in which tests control it.

The tests control the guest independently of the agent under test: by QMP from outside, and through
the original agent on another port. No QEMU process outlives its Guest: it is killed when the
context exits, or by the kernel when this process dies.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from qga.integrations.virtual_machine import GuestError as GuestError
from qga.integrations.virtual_machine import VirtualMachine

from .agent_socket import AgentSocket
from .building import RootImage, initrd_with, progress, require_tools
from .image import code_image, root_image
from .machines import ACCELERATOR, AMD64, Machine
from .qmp import Qmp

if TYPE_CHECKING:
    from typing_extensions import Self

KERNEL_OPTIONS = AMD64.kernel_options
BOOT_TIMEOUT = 600.0


class Port(NamedTuple):
    """A virtio serial port as libvirt makes one, and the chardev at its host end."""

    id: str
    nr: int
    name: str
    chardev: str


AGENT_PORT = Port("channel0", 1, "org.qemu.guest_agent.0", "charchannel0")
ORIGINAL_PORT = Port("channel1", 2, "org.qemu.guest_agent.original", "charchannel1")
# Nothing is plugged into the third place at boot.
SPARE_PORT = Port("channel2", 3, "org.qemu.guest_agent.spare", "charchannel2")
# Raw bytes; nobody in the guest has them open.
DATA_PORTS = tuple(
    Port(f"data{number}", 4 + number, f"org.qga.data.{number}", f"chardata{number}")
    for number in range(2)
)


class Result(NamedTuple):
    """How a program in the guest ended: `status` is its exit code, or minus its signal."""

    status: int
    stdout: str
    stderr: str


class Guest(VirtualMachine):
    """A booted guest; use it as a context manager.

    hardware: given the folder of the guest, what is to be added to QEMU's command line.
    before_init: a shell script for the initial ramdisk, run in the root before its init is.
    image: makes what is booted. machine: what QEMU emulates.
    """

    running: ClassVar[list[Guest]] = []

    def __init__(
        self,
        hardware: Callable[[Path], list[str]] = lambda _folder: [],
        before_init: str = "",
        image: Callable[[], RootImage] = root_image,
        machine: Machine = AMD64,
    ) -> None:
        super().__init__()
        self.hardware = hardware
        self.before_init = before_init
        self.image = image
        self.machine = machine
        self.isa_serial_path = str(self.folder / "isa-serial")
        self.qmp_client: Qmp | None = None
        self.original: AgentSocket | None = None
        self.boot_seconds = 0.0

    def __enter__(self) -> Self:
        super().__enter__()
        self.running.append(self)
        return self

    def do_boot(self) -> None:
        """Start QEMU and wait until the original agent answers."""
        require_tools(self.machine.program, "setpriv")
        image = self.image()
        if self.before_init:
            initrd = self.folder / "initrd"
            initrd_with(self.before_init, image.initrd, initrd)
            image = image._replace(initrd=initrd)
        code_disk = self.folder / "qga.ext4"
        code_image(code_disk)
        progress(f"booting (accelerator: {ACCELERATOR})")
        started = time.monotonic()
        self.launch(image, code_disk)
        self.wait_until_booted()
        self.boot_seconds = time.monotonic() - started
        progress(f"booted in {self.boot_seconds:.1f} s")

    def launch(self, image: RootImage, code_disk: Path) -> None:
        """Start QEMU, and connect to its monitor."""
        self.start_qemu(lambda descriptor: self.qemu_arguments(image, code_disk, descriptor))
        monitor = socket.socket(socket.AF_UNIX)
        monitor.connect(self.qmp_path)
        self.qmp_client = Qmp(monitor)

    def wait_until_booted(self) -> None:
        """Wait until the original agent answers after a restart."""
        if self.original is not None:
            self.original.close()
        self.wait_port(ORIGINAL_PORT, timeout=BOOT_TIMEOUT)
        self.original = AgentSocket(self.channel_path(ORIGINAL_PORT), timeout=60)
        self.original.sync()

    def reset(self) -> None:
        """Reset the machine, in any state, and wait until it has booted."""
        self.forget_events()
        self.qmp("system_reset")
        self.qmp("cont")
        self.wait_until_booted()

    def qemu_arguments(self, image: RootImage, code_disk: Path, qmp_fd: int) -> list[str]:
        """QEMU's command line. The agent's channel has exactly the options that libvirt uses."""
        machine = self.machine
        argv = [machine.program, *machine.options]
        argv += self.monitor_options(qmp_fd) + self.console_options()
        argv += ["-no-reboot", "-kernel", str(image.kernel), "-initrd", str(image.initrd)]
        argv += ["-append", machine.kernel_options]
        if machine == AMD64:
            argv += ["-chardev", f"socket,id=isa,path={self.isa_serial_path},server=on,wait=off"]
            argv += ["-device", "isa-serial,chardev=isa,index=1"]
        argv += ["-drive", f"if=none,id=root,{self.root_drive(image)}"]
        argv += ["-device", f"virtio-blk-{machine.bus},drive=root"]
        argv += ["-drive", f"if=none,id=qga,file={code_disk},format=raw,readonly=on"]
        argv += ["-device", f"virtio-blk-{machine.bus},drive=qga"]
        argv += ["-netdev", "user,id=net,restrict=on"]
        argv += ["-device", f"virtio-net-{machine.bus},netdev=net"]
        serial = f"virtio-serial-{machine.bus},id=virtio-serial0,max_ports=8{machine.serial}"
        argv += ["-device", serial]
        for port in (AGENT_PORT, ORIGINAL_PORT, SPARE_PORT, *DATA_PORTS):
            path = self.channel_path(port)
            argv += ["-chardev", f"socket,id={port.chardev},path={path},server=on,wait=off"]
        for port in (AGENT_PORT, ORIGINAL_PORT, *DATA_PORTS):
            argv += [
                "-device",
                f"virtserialport,bus=virtio-serial0.0,nr={port.nr},chardev={port.chardev},"
                f"id={port.id},name={port.name}",
            ]
        return argv + self.hardware(self.folder)

    def root_drive(self, image: RootImage) -> str:
        """What QEMU is told of the disk to boot from, which stays as it is."""
        return f"file={image.disk},format=raw,snapshot=on"

    def channel_path(self, port: Port = AGENT_PORT) -> str:
        """Where the host's end of a port listens."""
        return str(self.folder / port.chardev)

    def connect(self, port: Port = AGENT_PORT, timeout: float = 60) -> AgentSocket:
        """A new, synchronized connection to an agent."""
        agent = AgentSocket(self.channel_path(port), timeout)
        try:
            agent.sync()
        except BaseException:
            agent.close()
            raise
        return agent

    # From outside: QMP.

    def qmp(self, command: str, /, **arguments: Any) -> Any:
        """Run a QMP command; `_` in an argument's name stands for `-`."""
        return self.monitor().execute(
            command, {name.replace("_", "-"): value for name, value in arguments.items()}
        )

    def wait_event(self, name: str, timeout: float = 60, **data: Any) -> dict[str, Any]:
        """The next QMP event of this name with these members in its data."""
        return self.monitor().wait_event(name, timeout, **data)

    def forget_events(self) -> None:
        """Drop the QMP events so far, so that only new ones are waited for."""
        self.monitor().forget_events()

    def wait_port(self, port: Port, *, is_open: bool = True, timeout: float = 60) -> None:
        """Wait for the event that the guest opens (or closes) a port."""
        self.wait_event("VSERPORT_CHANGE", timeout, id=port.id, open=is_open)

    def unplug_port(self, port: Port = AGENT_PORT) -> None:
        """Unplug a port; returns when it is gone."""
        self.qmp("device_del", id=port.id)
        self.wait_event("DEVICE_DELETED", device=port.id)

    def plug_port(self, port: Port = AGENT_PORT) -> None:
        """Plug a port in (again)."""
        self.qmp(
            "device_add",
            driver="virtserialport",
            bus="virtio-serial0.0",
            nr=port.nr,
            chardev=port.chardev,
            id=port.id,
            name=port.name,
        )

    def monitor(self) -> Qmp:
        if self.qmp_client is None:
            raise GuestError("the guest is not running")
        return self.qmp_client

    # From inside: the original agent.

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | None = None,
        check: bool = True,
        timeout: float = 60,
    ) -> Result:
        """Run a program in the guest through the original agent and wait for its end.

        Raises GuestError when it fails (unless `check` is false) or takes more than `timeout`
        seconds.
        """
        if self.original is None:
            raise GuestError("the guest is not running")
        request: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if stdin is not None:
            data = stdin.encode() if isinstance(stdin, str) else stdin
            request["input-data"] = base64.b64encode(data).decode()
        pid = self.original.execute("guest-exec", **request)["pid"]
        result = self.wait_exec(self.original, argv, pid, timeout)
        if check and result.status != 0:
            raise GuestError(f"{list(argv)} ended with {result.status}: {result.stderr.strip()}")
        return result

    def wait_exec(
        self, agent: AgentSocket, argv: Sequence[str], pid: int, timeout: float = 60
    ) -> Result:
        """Wait until a program that `agent` started has ended."""
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            # Each question takes 6 ms of the guest's processors: the longer it takes, the fewer.
            time.sleep(min(max(0.05, waited / 10), 0.5))
            status = agent.execute("guest-exec-status", pid=pid)
            if status["exited"]:
                break
            if waited > timeout:
                raise GuestError(f"{list(argv)} takes too long")
        code = -status["signal"] if "signal" in status else status["exitcode"]
        return Result(code, decode(status, "out-data"), decode(status, "err-data"))

    def python(self, script: str, *arguments: str, timeout: float = 60) -> str:
        """Run a Python script in the guest; its standard output."""
        argv = ["/usr/bin/python3", "-", *arguments]
        return self.run(argv, stdin=script, timeout=timeout).stdout

    def write_file(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file in the guest, and create its directory."""
        script = '[ -d "${1%/*}" ] || mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"'
        self.run(["/bin/sh", "-ec", script, "sh", path, mode], stdin=text)

    def on_end(self) -> None:
        if self in self.running:
            self.running.remove(self)
        for end in (self.original, self.qmp_client):
            if end is not None:
                end.close()
        self.original = self.qmp_client = None


def decode(status: dict[str, Any], key: str) -> str:
    return base64.b64decode(status.get(key, "")).decode(errors="replace")
