"""The agents as processes: started, stopped, and looked at through /proc.

Ours runs as a package installs it: copied out of the checkout, compiled, and started by a Python
that is isolated from its user's environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.bench.client import Client
from tests.guest.image import CHECKOUT, install

FETCH_ORIGINAL = CHECKOUT / "packaging/fetch-original"

NEWEST, OLDER = "sid", "bookworm"
"""The Debian releases whose originals are compared with."""

PATIENCE = 30.0
"""Seconds after which an agent has failed to start or to end."""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "QGA_CONF": "/nonexistent/qemu-ga.conf",
}


class AgentError(Exception):
    """An agent did not start. The text contains its output."""


class Contestant(NamedTuple):
    """An agent to measure: its name in the table, its command line, and its version."""

    name: str
    argv: tuple[str, ...]
    version: str


def original(name: str, suite: str) -> Contestant:
    """The original of a Debian release."""
    argv = original_argv(original_root(suite))
    return Contestant(name, argv, _output(*argv, "--version").splitlines()[0])


def original_root(suite: str) -> Path:
    """Where the original of a Debian release is, with its libraries."""
    return Path(_output(str(FETCH_ORIGINAL), suite).strip()).parent / "root"


def original_argv(root: Path, place: Path | None = None) -> tuple[str, ...]:
    """What starts the original in `root`, which will be at `place`.

    fetch-original has a script for that, but its shell would count as part of the start.
    """
    libraries = {name: min(root.rglob(name)).parent for name in ("libc.so.6", "libglib-2.0.so.0")}
    loader = min(libraries["libc.so.6"].glob("ld-linux*.so.*"))
    there = [(place or root) / file.relative_to(root) for file in (loader, *libraries.values())]
    path = ":".join(map(str, there[1:]))
    return (str(there[0]), "--library-path", path, str((place or root) / "usr/sbin/qemu-ga"))


def ours(name: str, folder: Path, python: str, *, simd: bool = False) -> Contestant:
    """Our agent, installed into `folder` and run by this interpreter; with pybase64 if `simd`."""
    install(folder, str(folder), python)
    if simd:
        add_pybase64(folder, python)
    argv = (python, "-ISXutf8", str(folder / "qemu-ga"))
    versions = _output(*argv, "--version").splitlines()
    return Contestant(name, argv, f"{versions[-1]}, {_output(python, '--version').strip()}")


def add_pybase64(folder: Path, python: str) -> None:
    """Put pybase64 beside our agent, where a package's would be found."""
    release = _output(python, "--version").split()[1].rpartition(".")[0]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    target = ("--target", str(folder), "--python-version", release, "--only-binary=:all:")
    _output(*pip, *target, "pybase64", env=dict(os.environ))


def _output(*argv: str, env: dict[str, str] = _ENVIRONMENT) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    except OSError as error:
        raise AgentError(f"cannot run {argv[0]}: {error.strerror}") from None
    if done.returncode != 0:
        raise AgentError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Agent:
    """A running agent with a unix socket in a folder of its own; use it as a context manager.

    folder: its state and its socket.
    seconds_to_answer: from its start to its first reply.
    idle_memory: its resident memory after that, in bytes.
    """

    def __init__(self, contestant: Contestant, folder: Path) -> None:
        self.name = contestant.name
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._socket = str(folder / "socket")
        self._errors = folder / "stderr"
        begin = time.perf_counter()
        self._process = self._spawn(contestant)
        self._proc = Path(f"/proc/{self._process.pid}")
        try:
            with self._connect_when_it_listens() as client:
                client.call("guest-ping")
                self.seconds_to_answer = time.perf_counter() - begin
                self.idle_memory = self.memory("VmRSS")
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def connect(self) -> Client:
        """A new connection. The original serves one at a time."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._socket)
        except OSError:
            connection.close()
            raise
        return Client(connection)

    def cpu_time(self) -> int:
        """Nanoseconds that its threads have run, in the kernel's or their own code."""
        return sum(int(text.split()[0]) for text in self._of_each_thread("schedstat"))

    def switches(self) -> int:
        """Context switches of its threads, voluntary or not."""
        return sum(
            int(line.split()[1])
            for text in self._of_each_thread("status")
            for line in text.splitlines()
            if "ctxt_switches" in line
        )

    def writes(self) -> int:
        """Its calls of write(2) and the like."""
        return _number((self._proc / "io").read_text(), "syscw")

    def memory(self, what: str) -> int:
        """Bytes. VmRSS: resident now. VmHWM: the peak since `reset_peak`."""
        return _number((self._proc / "status").read_text(), what) * 1024

    def has_mapped(self, name: str) -> bool:
        """Whether a file of such a name is part of the program."""
        return name in (self._proc / "maps").read_text()

    @contextmanager
    def beside_us(self) -> Iterator[None]:
        """The agent on one processor with this process.

        For a short round trip the placement by the scheduler matters more than the work of the two
        processes, and it stays the same for long.
        """
        before = os.sched_getaffinity(0)
        self._stay_on({min(before)})
        try:
            yield
        finally:
            self._stay_on(before)

    def _stay_on(self, processors: set[int]) -> None:
        for task in (self._proc / "task").iterdir():
            os.sched_setaffinity(int(task.name), processors)
        os.sched_setaffinity(0, processors)

    def reset_peak(self) -> None:
        (self._proc / "clear_refs").write_text("5")

    def _of_each_thread(self, file: str) -> list[str]:
        return [path.read_text() for path in self._proc.glob(f"task/*/{file}")]

    def _spawn(self, contestant: Contestant) -> subprocess.Popen[bytes]:
        options = ("-m", "unix-listen", "-p", self._socket, "-t", str(self.folder))
        with self._errors.open("wb") as errors:
            return subprocess.Popen(
                [*contestant.argv, *options],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def _connect_when_it_listens(self) -> Client:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return self.connect()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    complaint = self._errors.read_text().strip()
                    raise AgentError(f"the {self.name} agent does not start: {complaint}") from None
                time.sleep(0.0002)


def _number(text: str, name: str) -> int:
    """The number after `name:` in a file of /proc."""
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)
