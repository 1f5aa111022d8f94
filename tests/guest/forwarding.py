"""A guest without a network card, with services on its loopback interface and in a socket.

.venv/bin/qgactl, ssh and the library reach them through the agent.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .service import wait_for
from .vm import Guest

QGACTL = [sys.executable, "-c", "from qga.ctl.main import main; main()"]

UNPLUGGED = """
for card in /sys/bus/virtio/drivers/virtio_net/virtio*; do
    basename "$card"
    basename "$card" >/sys/bus/virtio/drivers/virtio_net/unbind
done
"""
PLUGGED = """
for card; do echo "$card" >/sys/bus/virtio/drivers/virtio_net/bind; done
udevadm settle
systemctl restart guest-network
"""

PORT = 7007

SSHD = ["/usr/sbin/sshd", "-D", "-e", "-o", "UsePAM=no"]
SSHD += ["-o", "AuthorizedKeysFile=/run/test-keys", "-o", "MaxStartups=500"]

# Answers "sum" with the SHA-256 of what follows, "pour COUNT" with so many bytes that the seed
# gives, "reset" with a reset, and anything else with the same.
SERVICE = """
import hashlib, os, random, socket, struct, sys, threading

BLOCK = random.Random(1).randbytes(1 << 20)

def serve(connection):
    with connection:
        word, count = connection.recv(16).split()
        if word == b"sum":
            digest = hashlib.sha256()
            while data := connection.recv(1 << 18):
                digest.update(data)
            connection.sendall(digest.hexdigest().encode())
        elif word == b"pour":
            for _ in range(int(count)):
                connection.sendall(BLOCK)
        elif word == b"reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.sendall(word)
            while data := connection.recv(1 << 16):
                connection.sendall(data)
            connection.sendall(b"end")

def accept(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

unix = socket.socket(socket.AF_UNIX)
if os.path.exists("/run/service.sock"):
    os.unlink("/run/service.sock")
unix.bind("/run/service.sock")
unix.listen(200)
threading.Thread(target=accept, args=(unix,), daemon=True).start()
accept(socket.create_server(("127.0.0.1", 7007), backlog=200))
"""


@contextmanager
def without_network_card(guest: Guest) -> Iterator[None]:
    """The guest with nothing but its loopback interface."""
    cards = guest.run(["/bin/sh", "-ec", UNPLUGGED]).stdout.split()
    try:
        yield
    finally:
        guest.run(["/bin/sh", "-ec", PLUGGED, "sh", *cards])


@contextmanager
def running(guest: Guest, unit: str, argv: list[str], port: int) -> Iterator[None]:
    """A service that listens on a port."""
    guest.run(["systemd-run", f"--unit={unit}", "--collect", *argv])
    try:
        listens = ["/bin/sh", "-c", f"ss -Hltn 'sport = {port}'"]
        wait_for(lambda: guest.run(listens).stdout, f"{unit} to listen")
        yield
    finally:
        guest.run(["systemctl", "stop", unit], check=False)


@contextmanager
def services(guest: Guest, key: str, listen: str = "127.0.0.1") -> Iterator[None]:
    """The service above, and ssh at an address for who has the key."""
    guest.write_file("/run/service.py", SERVICE)
    guest.write_file("/run/test-keys", key, "600")
    guest.run(["mkdir", "-p", "/run/sshd"])
    with (
        running(guest, "test-service", ["/usr/bin/python3", "/run/service.py"], PORT),
        running(guest, "test-sshd", [*SSHD, "-o", f"ListenAddress={listen}"], 22),
    ):
        yield


class Ssh:
    """ssh and its relatives, by `qgactl proxy`, to the host `web.qga`."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "key"
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)]
        subprocess.run(make, check=True)
        proxy = folder / "proxy"
        words = " ".join(f"'{word}'" for word in [*QGACTL, "--timeout", "60", "proxy"])
        proxy.write_text(f'#!/bin/sh\nexec {words} -c "unix:{guest.channel_path()}" "$2"\n')
        proxy.chmod(0o755)
        self.config = folder / "config"
        self.config.write_text(
            f"Host *.qga\n  ProxyCommand {proxy} %h %p\n  User root\n  IdentityFile {self.key}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
            "  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n"
        )

    @property
    def public(self) -> str:
        return self.key.with_suffix(".pub").read_text()

    def run(self, *words: str, status: int = 0, input: bytes = b"") -> bytes:
        """The output of a program of ssh's family."""
        program, *rest = words
        how_to = ["-F", str(self.config)]
        if program == "rsync":
            how_to = ["-e", f"ssh -F {self.config}"]
        done = subprocess.run(
            [program, *how_to, *rest], capture_output=True, timeout=240, check=False, input=input
        )
        assert done.returncode == status, done.stderr
        return done.stdout
