"""A real QEMU whose machine has nothing to boot, and whose agent is scripted, for snapshots."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.client.errors import ConnectError
from qga.client.hosts.qmp import Qmp
from tests.integration.qgactl_process import QGACTL, environment
from tests.integration.qgactl_process import qgactl as run_qgactl
from tests.unit.client_peer import Filesystems, Peer, Start
from tests.unit.conftest import start as start
from tests.unit.host_root import qemu

SIZE = 8 << 20
PATIENCE = 30.0
LATENCY = "latency-ns=3000000000"  # of each read, of which QEMU does many at once


class Machine:
    """QEMU with a disk of each kind, and the agent of its guest."""

    def __init__(self, folder: Path, guest: Filesystems, peer: Peer) -> None:
        self.folder, self.guest, self.peer = folder, guest, peer
        self.socket = folder / "qmp"
        for name in ("root", "data", "temporary", "fixed"):
            (folder / name).write_bytes(os.urandom(SIZE))
        argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-m", "32"]
        argv += ["-device", "virtio-serial,id=virtio-serial0"]
        for place in (self.socket, f"{self.socket}2"):
            argv += ["-qmp", f"unix:{place},server=on,wait=off"]
        argv += qemu("web", f"{folder}/agent")[1:]
        argv += self.drive("root")
        argv += self.node("data", f"driver=raw,file.driver=file,file.filename={folder}/data")
        argv += self.drive("temporary", "snapshot=on")
        argv += self.drive("fixed", "readonly=on")
        argv += ["-drive", "if=ide,media=cdrom,id=empty"]
        argv += self.node("slow", f"driver=null-co,size={SIZE},read-zeroes=off,{LATENCY}")
        # A write beyond RLIMIT_FSIZE fails, as QEMU expects of a full disk, and kills nobody.
        self.qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, restore_signals=False)
        self.wait_until_it_listens()

    @staticmethod
    def drive(name: str, *options: str) -> list[str]:
        first = f"if=none,id={name},format=raw,file={name}"
        return ["-drive", ",".join([first, *options]), "-device", f"virtio-blk,drive={name}"]

    @staticmethod
    def node(name: str, options: str) -> list[str]:
        drive = ["-blockdev", f"node-name=node-{name},{options}"]
        return [*drive, "-device", f"virtio-blk,drive=node-{name},id={name}"]

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                Qmp(str(self.socket), PATIENCE).close()
                return
            except ConnectError:
                assert self.qemu.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)

    def options(self, *words: str) -> list[str]:
        return ["snapshot", str(self.folder / "copy"), "--qmp", str(self.socket), *words]

    def snapshot(self, *words: str, json: bool = False) -> tuple[int, str, str]:
        before = ["--json"] if json else []
        return run_qgactl(*before, *self.options(*words), address=self.peer.address)

    def start_slow(self, *words: str) -> subprocess.Popen[bytes]:
        """Returns when the copy of the slow disk has started."""
        argv = [*QGACTL, *self.options("--disk", "slow", *words)]
        process = subprocess.Popen(argv, env=environment(self.peer.address), stderr=subprocess.PIPE)
        wait_until(lambda: "guest-fsfreeze-thaw" in self.commands(), "the thaw")
        return process

    def commands(self) -> list[str]:
        return [request["execute"] for request in self.peer.requests]

    def ask(self, command: str) -> Any:
        with Qmp(str(self.socket), PATIENCE) as qmp:
            return qmp.execute(command)

    def assert_clean(self) -> None:
        """Nothing is left: in QEMU, on the disk, in the guest."""
        assert self.ask("query-jobs") == []
        nodes = self.ask("query-named-block-nodes")
        assert not [node for node in nodes if node["node-name"].startswith("qga-")]
        assert self.ask("query-fdsets") == []
        assert not (self.folder / "copy").exists()
        assert self.guest.frozen == 0

    def end(self) -> None:
        self.qemu.kill()
        self.qemu.wait()


@pytest.fixture
def machine(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.chdir(tmp_path)
    guest = Filesystems()
    handlers = {
        **guest.handlers,
        "guest-get-fsinfo": lambda _: [mounted("a"), mounted("b")],
        "qga-get-freeze": lambda _: RuntimeError("CommandNotFound", "no such command"),
    }
    machine = Machine(tmp_path, guest, start(handlers))
    yield machine
    machine.end()


def mounted(name: str, kind: str = "ext4") -> dict[str, Any]:
    return {"name": f"vd{name}", "mountpoint": f"/{name}", "type": kind, "disk": []}


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
