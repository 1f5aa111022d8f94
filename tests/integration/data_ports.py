"""An agent whose data ports are pseudo-terminals, to test transfers without a guest.

A pseudo-terminal whose other end is closed reports a hang-up, as a port does. The kernel's real
ports are tested in the guest.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.agent_process import PATIENCE, AgentProcess, listening

NAME = "org.qga.data.0"

# Runs what follows it, `PYTHON -m qga …`, in this process, with other folders than the kernel's.
LAUNCHER = """
import sys
from qga import ports
from qga.cli import main
ports._PORTS, ports._DEVICES, ports._DEBUG = (f"{sys.argv[1]}/{n}" for n in ("class", "dev", "debug"))
sys.argv = ["qemu-ga", *sys.argv[5:]]
sys.exit(main())
"""  # noqa: E501


class HostEnd:
    """The host's end of a port. The guest's end is kept open as well, so that nothing is lost."""

    def __init__(self) -> None:
        self.fd, self._device = os.openpty()
        self.path = os.ttyname(self._device)
        tty.setraw(self._device)

    def __enter__(self) -> HostEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            os.close(self._device)
            self.fd = -1

    def forget(self) -> None:
        """Discard everything that was sent and not read."""
        termios.tcflush(self._device, termios.TCIOFLUSH)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]

    def take(self, count: int) -> bytes:
        """Read exactly this many bytes."""
        data = b""
        while len(data) < count:
            ready, _, _ = select.select([self.fd], [], [], PATIENCE)
            assert ready, f"waited in vain after {data!r}"
            data += os.read(self.fd, count - len(data))
        return data

    def take_line(self) -> bytes:
        """Read up to and including a newline."""
        line = self.take(1)
        while not line.endswith(b"\n"):
            line += self.take(1)
        return line


@contextmanager
def with_port(folder: Path, config: str = "") -> Iterator[tuple[AgentProcess, HostEnd]]:
    """An agent that listens, and the host's end of its one data port."""
    (folder / "class/vport0p1").mkdir(parents=True)
    (folder / "class/vport0p1/name").write_text(f"{NAME}\n")
    (folder / "dev").mkdir()
    launcher = [sys.executable, "-c", LAUNCHER, str(folder)]
    with HostEnd() as host, listening(folder, config=config, launcher=launcher) as agent:
        (folder / "dev/vport0p1").symlink_to(host.path)
        yield agent, host
