"""A libvirt of the tests' own: its daemon, and virsh as the way to it.

It shares nothing with a libvirt of this machine: all of its files are in one folder, and it takes
itself for an ordinary user's, who needs no cgroups, no D-Bus and no security driver.  It and what
it starts live in a process namespace, so that all of them end at once, whoever is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.guest.image import CannotBuildError
from tests.guest.service import wait_for

# The log is the daemon's own affair: no virtlogd.
QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
"""
# The daemons that can do it, one or the other of which a distribution has, and their sockets.
DAEMONS = {"libvirtd": "libvirt-sock", "virtqemud": "virtqemud-sock"}
FOLDERS = {
    "HOME": "home",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_RUNTIME_DIR": "run",
}
# A user that is not root, although it may do with files what root may.
SOMEBODY = 65534
# The namespace's first process inherits those that libvirt lets go, and has to bury them.
INIT = '"$@" & wait'


class LibvirtError(Exception):
    """virsh failed, or the daemon did; the text is what it said."""


class Libvirt:
    """A daemon whose files are in `folder`; its owner starts and ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon = installed_daemon()
        self.socket = folder / "run/libvirt" / DAEMONS[self.daemon.name]
        self.uri = f"qemu:///session?socket={self.socket}"
        self.log = folder / "libvirt.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon and wait until it listens."""
        environment = {key: str(self.folder / name) for key, name in FOLDERS.items()}
        for name in FOLDERS.values():
            (self.folder / name).mkdir()
        (self.folder / "config/libvirt").mkdir()
        (self.folder / "config/libvirt/qemu.conf").write_text(QEMU_CONF)
        argv = ["setpriv", "--pdeathsig", "KILL", "--"]
        argv += ["unshare", "--user", f"--map-user={SOMEBODY}", "--pid", "--mount-proc", "--fork"]
        argv += ["--kill-child", "--", "sh", "-c", INIT, "sh", str(self.daemon)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(self.listens, "libvirt to listen")

    def listens(self) -> bool:
        """Whether clients can connect. Raises LibvirtError when the daemon has ended."""
        if self.process is None or self.process.poll() is not None:
            raise LibvirtError(f"{self.daemon} has ended:\n{self.log.read_text()}")
        return self.socket.exists()

    def end(self) -> None:
        """Kill the daemon, and with it what it has started."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def virsh(self, *argv: str, timeout: float = 100) -> str:
        """Run virsh; what it prints. Raises LibvirtError with what it says when it fails."""
        done = subprocess.run(
            ["virsh", "--connect", self.uri, *argv],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise LibvirtError(f"virsh ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout


def installed_daemon() -> Path:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for name in DAEMONS:
        if found := shutil.which(name, path=path):
            return Path(found)
    raise CannotBuildError("libvirtd: not installed (Debian's libvirt-daemon)")
