"""A guest with a real vsock device, without KVM: vhost-device-vsock runs beside QEMU.

Its socket on the host speaks as Firecracker's and Cloud Hypervisor's do: `CONNECT 1234\\n` leads to
the guest's port 1234, and is answered with `OK …\\n`.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from .agent_socket import AgentSocket
from .building import CHECKOUT, CannotBuildError, RootImage
from .vm import Guest, GuestError

FETCH = CHECKOUT / "packaging/fetch-vsock"
PATIENCE = 30.0
# vhost-user shares the guest's memory with the device.
DEVICE = (
    *("-object", "memory-backend-memfd,id=shared,size=512M,share=on"),
    *("-machine", "memory-backend=shared"),
    *("-device", "vhost-user-vsock-pci,chardev=vsock,addr=0x1d"),
)


class VsockGuest(Guest):
    """`device`: the process that runs beside QEMU."""

    device: subprocess.Popen[bytes] | None = None

    @property
    def vsock_path(self) -> str:
        """The device's socket on the host."""
        return str(self.folder / "vsock")

    def vsock_address(self, port: int) -> str:
        """The address of an agent that listens on this port, for qga.client."""
        return f"hvsock:{self.vsock_path}:{port}"

    def dial(self, port: int, timeout: float = 60) -> socket.socket:
        """Connect to a port of the guest. ConnectionError if nobody listens there."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(self.vsock_path)
        sock.sendall(b"CONNECT %d\n" % port)
        answer = b""
        while not answer.endswith(b"\n"):
            piece = sock.recv(1)
            if not piece:
                sock.close()
                raise ConnectionError(f"nobody listens on the guest's port {port}")
            answer += piece
        assert answer.startswith(b"OK "), answer
        return sock

    def dial_agent(self, port: int) -> AgentSocket:
        """Connect to an agent as soon as it listens on this port."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                agent = AgentSocket(self.dial(port))
                agent.sync()
                return agent
            except ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def qemu_arguments(self, image: RootImage, code_disk: Path, qmp_fd: int) -> list[str]:
        self.start_device()
        control = f"socket,id=vsock,path={self.folder / 'vhost'}"
        arguments = super().qemu_arguments(image, code_disk, qmp_fd)
        return [*arguments, "-chardev", control, *DEVICE]

    def start_device(self) -> None:
        argv = ["setpriv", "--pdeathsig", "KILL", "--", vsock_program()]
        argv += ["--socket", str(self.folder / "vhost"), "--uds-path", self.vsock_path]
        with (self.folder / "vsock.log").open("wb") as log:
            self.device = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / "vhost").exists():
            if self.device.poll() is not None or time.monotonic() > deadline:
                log_text = (self.folder / "vsock.log").read_text(errors="replace")
                raise GuestError(f"the vsock device did not start: {log_text}")
            time.sleep(0.02)

    def on_end(self) -> None:
        if self.device is not None:
            self.device.kill()
            self.device.wait()
            self.device = None
        super().on_end()


def vsock_program() -> str:
    """The path of vhost-device-vsock, fetched if it is not in the cache."""
    done = subprocess.run([FETCH], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuildError(done.stderr)
    return done.stdout.strip()
