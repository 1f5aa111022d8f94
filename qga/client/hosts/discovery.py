"""The guests of this host that have an agent's port, wherever libvirt, Proxmox or a plain QEMU
put its socket.

Nothing is connected to here: finding costs a look into some folders and into /proc, and disturbs
nobody. `$QGA_HOST_ROOT` is where to look, for a container that has the host's / mounted.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qga.client.hosts.processes import AGENT_PORT, Machine, running_machines
from qga.client.sockets import connected_paths, connections_to

SYSTEM, SESSION = "qemu:///system", "qemu:///session"

# What stands before the domain's name in that of libvirt's folder for it: domain-1-web, 1-web.
BEFORE_NAME = re.compile(r"(domain-)?(\d+-)?")
# As many bytes of a domain's name stand in the folder's.
SHORT_NAME = 20

PROXMOX_FOLDER = "/var/run/qemu-server"


class FoundGuest(NamedTuple):
    """A guest that runs here. `address` is the way to its agent that is most likely free.

    manager: `libvirt`, `proxmox` or `qemu`, whoever made the socket.
    domain: its address by way of libvirt, if libvirt runs it.
    busy: some program is connected to the socket (libvirt always is).
    """

    name: str
    address: str
    socket: str
    manager: str
    domain: str = ""
    busy: bool = False

    def is_called(self, name: str) -> bool:
        """By its name, or in Proxmox by its number."""
        return name == self.name or self.address == f"proxmox:{name}"


def find_guests() -> list[FoundGuest]:
    """By name."""
    machines = running_machines(host_root())
    in_use = connected_paths()
    found: dict[str, FoundGuest] = {}
    for guest in (*libvirt_guests(machines), *proxmox_guests(machines), *plain_guests(machines)):
        busy = connections_to(guest.socket, in_use) > 0
        by_libvirt = busy and guest.domain and libvirt_is_installed()
        address = guest.domain if by_libvirt else guest.address
        found.setdefault(os.path.realpath(guest.socket), guest._replace(address=address, busy=busy))
    return sorted(found.values())


def libvirt_guests(machines: list[Machine]) -> Iterator[FoundGuest]:
    for folder, _ in libvirt_folders():
        for pattern in (f"*/{AGENT_PORT}", f"*.{AGENT_PORT}"):
            for path in sorted(folder.glob(pattern)):
                guest = libvirt_guest(str(path), machines)
                if guest:
                    yield guest


def libvirt_folders() -> Iterator[tuple[Path, str]]:
    """Where libvirt makes channels' sockets, and the URI of the libvirt that does."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    yield host_path("/var/lib/libvirt/qemu/channel/target"), SYSTEM
    yield host_path("/run/libvirt/qemu/channel"), SYSTEM
    yield host_path(f"{config}/libvirt/qemu/channel/target"), SESSION
    yield host_path(f"{runtime}/libvirt/qemu/run/channel"), SESSION


def libvirt_guest(path: str, machines: list[Machine]) -> FoundGuest | None:
    """The domain whose agent's socket this is; None for a socket that is not libvirt's."""
    inner = Path(os.path.realpath(path)).parent
    for folder, uri in libvirt_folders():
        real = Path(os.path.realpath(folder))
        if real == inner.parent:
            short = BEFORE_NAME.sub("", inner.name, count=1)
        elif real == inner:  # before libvirt 1.3
            short = os.path.basename(path)[: -len(AGENT_PORT) - 1]
        else:
            continue
        names = [machine.name for machine in machines if shortened(machine.name) == short]
        name = names[0] if names else short
        return FoundGuest(name, f"unix:{path}", path, "libvirt", f"libvirt:{uri}/{name}")
    return None


def shortened(name: str) -> str:
    """As much of a domain's name as libvirt's folder has."""
    return name.encode()[:SHORT_NAME].decode(errors="ignore")


def proxmox_guests(machines: list[Machine]) -> Iterator[FoundGuest]:
    for path in sorted(host_path(PROXMOX_FOLDER).glob("*.qga")):
        vmid = path.name[: -len(".qga")]
        socket = f"{PROXMOX_FOLDER}/{path.name}"
        names = [machine.name for machine in machines if socket in machine.sockets]
        yield FoundGuest(names[0] if names else vmid, f"proxmox:{vmid}", str(path), "proxmox")


def plain_guests(machines: list[Machine]) -> Iterator[FoundGuest]:
    """By QEMU's arguments: also libvirt's guests, where its folders are closed to us."""
    for machine in machines:
        for path in map(str, map(host_path, machine.sockets)):
            plain = FoundGuest(machine.name, f"unix:{path}", path, "qemu")
            yield libvirt_guest(path, machines) or plain


def proxmox_socket(vmid: str) -> str:
    return str(host_path(f"{PROXMOX_FOLDER}/{vmid}.qga"))


def libvirt_domain_of(path: str) -> str:
    """The address by way of libvirt of the guest whose socket this is; "" for another's."""
    guest = libvirt_guest(path, running_machines(host_root()))
    return guest.domain if guest else ""


def libvirt_is_installed() -> bool:
    return importlib.util.find_spec("libvirt_qemu") is not None


def host_root() -> Path:
    return Path(os.environ.get("QGA_HOST_ROOT") or "/")


def host_path(path: str) -> Path:
    """A path of the host, where we see it."""
    return host_root() / path.lstrip("/")
