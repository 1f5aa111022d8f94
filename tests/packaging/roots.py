"""Run a program from an unpacked package as if it were installed here.

An overlay puts the package's files over those of this system, for one process only. The directory
`shared` is visible to both sides.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.guest.agent_socket import AgentSocket

ENTER = """\
mount -t tmpfs tmpfs "$1/over"
mkdir "$1/over/tree" "$1/over/root" "$1/over/upper" "$1/over/work"
cp -a "$1/tree/." "$1/over/tree"
options="lowerdir=$1/over/tree:/,upperdir=$1/over/upper,workdir=$1/over/work"
mount -t overlay overlay -o "$options" "$1/over/root"
mkdir -p "$1/over/root/shared"
mount --bind "$1/shared" "$1/over/root/shared"
mount --bind /dev "$1/over/root/dev"
mount --bind /proc "$1/over/root/proc"
root=$1/over/root
shift
exec chroot "$root" "$@"
"""


class Root:
    """An unpacked package; `command` returns the command line that runs a program in it."""

    def __init__(self, folder: Path, tree: Path) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir()
        (folder / "over").mkdir()
        tree.rename(folder / "tree")
        if (folder / "tree/lib").is_dir():  # /lib is a link, and must stay one
            shutil.copytree(folder / "tree/lib", folder / "tree/usr/lib", dirs_exist_ok=True)
            shutil.rmtree(folder / "tree/lib")

    def command(self, *argv: str) -> list[str]:
        return ["unshare", "--mount", "/bin/sh", "-ec", ENTER, "sh", str(self.folder), *argv]

    def run(self, *argv: str) -> str:
        done = subprocess.run(self.command(*argv), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def agent(self, program: str) -> Iterator[AgentSocket]:
        """Connect to the agent, which listens in the shared directory."""
        argv = self.command(program, "-m", "unix-listen", "-p", "/shared/qga", "-t", "/shared")
        process = subprocess.Popen(argv)
        try:
            path = self.shared / "qga"
            wait_for_listener(path, process)
            with AgentSocket(str(path)) as agent:
                agent.sync()
                yield agent
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


def wait_for_listener(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "the agent has ended"
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.05)
            else:
                return
    raise AssertionError(f"nobody listens at {path}")
