"""Runs a victim with limits on memory and time, and returns its output and what it used."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.hostile.monitor import Qemu
from tests.unit.host_root import HostRoot, qemu

MB = 1 << 20

# Of address space: Python with qgactl maps 200 MiB.
MOST_MEMORY = 1024 * MB

# Seconds between two attempts of a user to leave.
INSISTENCE = 0.2

# Seconds. On an idle machine a victim needs a fraction of one.
MOST_SECONDS = 30.0


class Outcome(NamedTuple):
    """The end of a run, its output, and what it used."""

    status: int
    killed: bool
    seconds: float
    cpu: float
    memory: int
    disk: int
    out: str
    err: str


class Victims:
    """A process that forks victims; a context. The guest's QEMU is honest."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._qemu = Qemu(Path(self._folder.name, "qmp"))
        command = [sys.executable, "-m", "tests.hostile.zygote"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Victims:
        return self

    def __exit__(self, *_: object) -> None:
        with self._folder, self._qemu:
            self._process.communicate(timeout=60)

    def qgactl(
        self,
        address: str,
        *argv: str,
        stdin: str = "",
        terminal: bool = False,
        insists: str = "",
        wait: float = 0,
    ) -> Outcome:
        """`wait`: --timeout in seconds (default: 30).

        insists: text that the user of the terminal types again and again.
        """
        options = ["--timeout", str(wait or 30)]
        return self._run(address, stdin, terminal, insists, argv=[*options, *argv])

    def methods(self, address: str, wait: float = 0) -> Outcome:
        """Call all methods of the library; stdout is that of tests.hostile.methods."""
        return self._run(address, methods=[address, wait or 30])

    def _run(
        self,
        address: str,
        stdin: str = "",
        terminal: bool = False,
        insists: str = "",
        **what: Any,
    ) -> Outcome:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            home = folder / "home"
            home.mkdir()
            (folder / "stdin").write_text(stdin)
            host = HostRoot(folder / "host")
            monitor = ["-qmp", "unix:/qmp,server=on"]
            host.process(4711, [*qemu("web", "/socket"), *monitor])
            (folder / "host/qmp").symlink_to(self._qemu.path)
            (folder / "host/socket").symlink_to(address.partition(":")[2])
            order = {
                "argv": [],
                "methods": [],
                **what,
                "directory": str(home),
                "environment": {
                    "HOME": str(home),
                    "TMPDIR": str(home),
                    "PATH": os.environ["PATH"],
                    "TERM": "xterm-256color",
                    "LC_ALL": "C.UTF-8",
                    "QGA_CONNECT": address,
                    "QGA_HOST_ROOT": str(host.folder),
                },
                "address_space": MOST_MEMORY,
                "seconds": MOST_SECONDS,
            }
            files = {name: str(folder / name) for name in ("stdin", "stdout", "stderr")}
            if terminal:
                with Screen(insists) as screen:
                    screen.type(f"{stdin}\n")
                    files = dict.fromkeys(files, screen.name)
                    cost = self._order({**order, **files})
                return Outcome(**cost, disk=size_of(home), out=screen.shown, err="")
            cost = self._order({**order, **files})
            out, err = (read(folder / name) for name in ("stdout", "stderr"))
            return Outcome(**cost, disk=size_of(home), out=out, err=err)

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        cost: dict[str, Any] = json.loads(self._process.stdout.readline())
        return cost


class Screen:
    """A terminal. `shown` has everything that was written to it."""

    def __init__(self, insists: str) -> None:
        self._screen, self._end = pty.openpty()
        self.name = os.ttyname(self._end)
        self.shown = ""
        self._pieces: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._insists = insists
        self._left = threading.Event()
        self._user = threading.Thread(target=self._insist, daemon=True)

    def __enter__(self) -> Screen:
        self._reader.start()
        self._user.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._user.join()
        os.close(self._end)
        self._reader.join(60)
        os.close(self._screen)
        self.shown = b"".join(self._pieces).decode(errors="surrogateescape")

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def _insist(self) -> None:
        while self._insists and not self._left.wait(INSISTENCE):
            self.type(self._insists)

    def _read(self) -> None:
        with suppress(OSError):  # EIO when the last process has closed it
            while data := os.read(self._screen, 65536):
                self._pieces.append(data)


def read(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def size_of(folder: Path) -> int:
    """Bytes on disk below a directory."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def as_objects(text: str) -> Sequence[Any]:
    return [json.loads(line) for line in text.splitlines()]
