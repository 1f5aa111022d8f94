"""Starts and stops the two agents, and observes them through /proc.

Ours runs as a package installs it: copied out of the checkout, compiled, and started by a Python
that is isolated from its user's environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.bench.client import Client
from tests.guest.image import install

ORIGINAL = "/usr/sbin/qemu-ga"

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


def original() -> Contestant:
    version = _output(ORIGINAL, "--version").splitlines()[0]
    return Contestant("original", (ORIGINAL,), version)


def ours(folder: Path, python: str) -> Contestant:
    """Our agent, installed into `folder` and run by this interpreter."""
    install(folder, str(folder), python)
    argv = (python, "-ISXutf8", str(folder / "qemu-ga"))
    versions = _output(*argv, "--version").splitlines()
    return Contestant("ours", argv, f"{versions[-1]}, {_output(python, '--version').strip()}")


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
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
