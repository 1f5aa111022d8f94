"""The commands of docs/qgactl.md, run with a real guest.

    python -m tests.host.day    boots one and writes their output into the page anew

In the page a console block has commands behind `$ `, each with its output. They run in a folder
with a few files, on a host whose only guest is called web. What follows a command that ends with
` # by hand` is left as it is: a terminal, or what would end the guest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.guest import hardware
from tests.guest.image import CHECKOUT
from tests.guest.vm import AGENT_PORT, DATA_PORTS, Guest
from tests.unit.host_root import HostRoot

PAGE = CHECKOUT / "docs/qgactl.md"
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
BY_HAND = " # by hand"
# The guest's processor is emulated.
PATIENT = 'qgactl() { command qgactl --timeout 60 "$@"; }\n'

# Where this host has the guest's sockets.
SOCKETS = "/run/vm/web"


class Step(NamedTuple):
    command: str
    output: str


def steps(block: str) -> list[Step]:
    """The commands of a block, and what the page says that they write."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [Step(*part.partition("\n")[0::2]) for part in parts]


class Day:
    """A folder to work in, and a host with one guest."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.work = folder / "work"
        self.root = folder / "root"
        self._make_files()
        self._make_host(guest)
        with guest.connect() as agent:
            agent.execute("guest-set-time", time=time.time_ns())  # emulated clocks stray under load
        qgactl = Path(sys.executable).parent
        self.env = {
            "PATH": f"{qgactl}:{os.environ['PATH']}",
            "HOME": str(self.work),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "100",
            "QGA_CONNECT": "web",
            "QGA_HOST_ROOT": str(self.root),
        }

    def run(self, command: str) -> str:
        """What a command writes, on either stream."""
        done = subprocess.run(
            ["/bin/bash", "-c", PATIENT + command],
            cwd=self.work,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        lines = done.stdout.replace(str(self.root), "").splitlines()
        return "".join(f"{line.rstrip()}\n" for line in lines)

    def _make_files(self) -> None:
        (self.work / "site/images").mkdir(parents=True)
        (self.work / "site/index.html").write_text("<h1>It works</h1>\n")
        (self.work / "site/images/logo.png").write_bytes(bytes(150_000))
        (self.work / "motd").write_text("Maintenance at noon.\n")
        (self.work / "image.raw").write_bytes(os.urandom(8 * 1024 * 1024))

    def _make_host(self, guest: Guest) -> None:
        """A /proc with one QEMU in it, and its sockets, which are those of the guest."""
        sockets = self.root / SOCKETS[1:]
        sockets.mkdir(parents=True)
        argv = ["qemu-system-x86_64", "-name", "guest=web"]
        for port in (AGENT_PORT, *DATA_PORTS):
            (sockets / port.name).symlink_to(guest.channel_path(port))
            path = f"{SOCKETS}/{port.name}"
            argv += ["-chardev", f"socket,id={port.chardev},path={path},server=on,wait=off"]
            argv += ["-device", f"virtserialport,chardev={port.chardev},name={port.name}"]
        assert guest.qemu
        self.host = HostRoot(self.root)
        self.host.process(guest.qemu.pid, argv)


def run_again(page: str, day: Day) -> Iterator[tuple[Step, str]]:
    """Each command of the page, and what it writes now."""
    for block in BLOCK.findall(page):
        for step in steps(block):
            now = step.output if step.command.endswith(BY_HAND) else day.run(step.command)
            yield step, now


def main() -> None:
    page = PAGE.read_text()
    with Guest(hardware.disks) as guest, tempfile.TemporaryDirectory() as folder:
        guest.run(["/bin/sh", "-ec", hardware.AWAIT], timeout=600)
        day = Day(guest, Path(folder))
        again = [f"$ {step.command}\n{now}" for step, now in run_again(page, day)]
    outputs = iter(again)
    PAGE.write_text(
        BLOCK.sub(lambda block: "".join(next(outputs) for _ in steps(block.group())), page)
    )


if __name__ == "__main__":
    main()
