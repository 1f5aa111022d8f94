"""A folder that stands in for the / of a host with guests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AGENT_PORT = "org.qemu.guest_agent.0"


class HostRoot:
    """Files where libvirt, Proxmox and QEMU have theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process(1, ["/sbin/init"])

    def file(self, path: str) -> Path:
        """An empty file, as good as a socket for who only looks."""
        made = self.folder / path.lstrip("/")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.touch()
        return made

    def process(
        self,
        pid: int,
        argv: Sequence[str],
        cwd: str = "/",
        program: str = "",
        uids: Sequence[int] = (),
        root: str = "/",
    ) -> None:
        """A process that runs `program`, that of its arguments if none is given.

        uids: the real, effective, saved and filesystem user id, if they are not this user's.
        """
        folder = self.folder / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))
        (folder / "cwd").symlink_to(cwd)
        (folder / "root").symlink_to(root)
        (folder / "exe").symlink_to(program or (argv[0] if argv else "/sbin/kthreadd"))
        numbers = "\t".join(map(str, uids or [os.geteuid()] * 4))
        (folder / "status").write_text(f"Name:\tqemu\nUid:\t{numbers}\nGid:\t0\t0\t0\t0\n")


def qemu(name: str, path: str, port: str = AGENT_PORT) -> list[str]:
    """QEMU's arguments with one port."""
    return [
        "/usr/bin/qemu-system-x86_64",
        *("-name", name),
        *("-chardev", f"socket,id=c0,path={path},server=on,wait=off"),
        *("-device", f"virtserialport,bus=virtio-serial0.0,nr=1,chardev=c0,id=p0,name={port}"),
    ]


@contextmanager
def impostor(folder: Path, name: str, program: str = "", uid: int = 0) -> Iterator[int]:
    """A process that looks like a QEMU with the socket folder/socket; its number."""
    program = program or str(shutil.copy("/bin/sh", folder / "qemu-system-x86_64"))
    argv = ["qemu-system-x86_64", "-c", "read line; exit"]
    argv += qemu(name, str(folder / "socket"))[1:]
    other: Any = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
    process = subprocess.Popen(argv, executable=program, stdin=subprocess.PIPE, **other)
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)  # it is about to have its arguments
    try:
        yield process.pid
    finally:
        process.communicate()
