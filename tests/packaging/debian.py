"""Root filesystems of Debian releases with QEMU's agent, for installing packages with their dpkg.

Two more have servers and clients to test with. A root takes half a minute to build and is cached.
Each `Root` is an overlay in memory on top of it, so that every test starts from the same state.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.packaging.built import CHECKOUT, output

SUITES = ("bookworm", "trixie", "sid")

CACHE = CHECKOUT / ".cache/packaging"
INCLUDED = ("qemu-guest-agent", "python3", "python3-psutil", "python3-serial", "python3-systemd")
# Not in the roots of dpkg: they bring systemd with them.
OTHERS = {
    "clients": ("bookworm", ("dhcpcd-base", "dnsmasq-base", "isc-dhcp-client", "network-manager")),
    "servers": ("sid", ("mysql-server", "valkey-server")),
}
ORIGINAL = "/root/qemu-guest-agent_*.deb"

# What runs in the root sees no network and no process of this machine, and ends with the holder.
APART = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")

# Holds the overlay for as long as its standard input is open.
HOLD = """\
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount --bind /dev "$2/root/dev"
mount --bind /proc "$2/root/proc"
echo ready
cat
"""


class Root:
    """A root filesystem for one test; changes persist for the commands that follow.

    pid: the process that holds the overlay. layers: what it consists of, the uppermost first.
    apart: whether it holds namespaces for the network and processes, too.
    """

    def __init__(self, pid: int, place: Path, layers: str, apart: bool) -> None:
        self.namespace = ["nsenter", f"--mount=/proc/{pid}/ns/mnt"]
        if apart:
            self.namespace += [
                f"--net=/proc/{pid}/ns/net",
                f"--pid=/proc/{pid}/ns/pid_for_children",
            ]
        self.layers = layers
        self._enter = [*self.namespace, "chroot", str(place / "root")]

    def attempt(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script, which may fail. Nobody can answer questions."""
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
        argv = [*self._enter, *environment, "DEBIAN_FRONTEND=noninteractive"]
        return subprocess.run(
            [*argv, "/bin/sh", "-ec", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def run(self, script: str) -> str:
        """Run a shell script that must succeed; return its output."""
        done = self.attempt(script)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def put(self, file: Path, path: str) -> None:
        """Copy a file into the root."""
        argv = [*self._enter, "/bin/sh", "-ec", 'cat >"$1"', "sh", path]
        subprocess.run(argv, input=file.read_bytes(), check=True)

    def read(self, path: str) -> str:
        return self.run(f"cat {path}")

    def lost(self, package: str) -> list[str]:
        """The package's files that are missing."""
        return self.run(f'dpkg -L {package} | while read -r f; do [ -e "$f" ] || echo "$f"; done'
                        ).splitlines()  # fmt: skip


@contextmanager
def root(kind: str, *, apart: bool = False) -> Iterator[Root]:
    """A root for one test: that of a release, or one of OTHERS.

    apart: without the network and the processes of this machine.
    """
    with _overlay([], str(_built(kind)), apart=apart) as made:
        yield made


@contextmanager
def copy(original: Root) -> Iterator[Root]:
    """A root that starts as `original` is now, which may not be changed as long."""
    with _overlay(original.namespace, original.layers) as made:
        yield made


@contextmanager
def _overlay(enter: list[str], layers: str, *, apart: bool = False) -> Iterator[Root]:
    more = APART if apart else ()
    with tempfile.TemporaryDirectory(prefix="qga-root-") as folder:
        argv = [*enter, "unshare", "--mount", *more, "/bin/sh", "-ec", HOLD, "sh", layers, folder]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            yield Root(holder.pid, Path(folder), f"{folder}/upper:{layers}", apart)
            holder.communicate()


def _built(kind: str) -> Path:
    suite, packages = OTHERS.get(kind, (kind, ()))
    command = _build_command(packages)
    key = hashlib.sha256(repr(command).encode()).hexdigest()[:16]
    folder = CACHE / f"{kind}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be building it
        if not folder.exists():
            for other in CACHE.glob(f"{kind}-*"):
                shutil.rmtree(other)
            building = CACHE / f"building-{kind}"
            shutil.rmtree(building, ignore_errors=True)
            output(*command, suite, building)
            building.rename(folder)
    return folder


def _build_command(packages: Iterable[str]) -> list[str]:
    return [
        # Its mounts in the root end with it, also if it is killed.
        *("unshare", "--mount", "mmdebstrap"),
        "--quiet",
        "--variant=apt",
        f"--include={','.join((*INCLUDED, *packages))}",
        "--aptopt=Acquire::Check-Valid-Until false",  # the clock of a test machine may be ahead
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        # The package itself, to be installed again.
        '--customize-hook=chroot "$1" sh -c "cd /root && apt-get download qemu-guest-agent"',
        '--customize-hook=rm "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
    ]
