"""The guests of this host that have an agent's port, wherever libvirt, Proxmox or a plain QEMU
put its socket.

Nothing is connected to here: finding costs a look into some directories and into /proc, and
disturbs nobody. `$QGA_HOST_ROOT` is where to look, for a container that has the host's / mounted.

What must stay true: a guest is found only where its process, its socket and the directory that
names it belong to somebody who is believed (qga.client.hosts.trust). Whatever cannot be read, or
is gone by the time it is looked at, costs no other guest its place. A socket can be replaced at
any time after the look: `check_listener` says who is at its other end.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qga.client.errors import ConnectError
from qga.client.hosts.processes import AGENT_PORT, Machine, running_machines
from qga.client.hosts.trust import LeftOut, believed_users, owners, user_name, user_names
from qga.client.sockets import connected_paths, connections_to

SYSTEM, SESSION = "qemu:///system", "qemu:///session"

# libvirt's directory for a domain: domain-1-web, 1-web.
DOMAIN_FOLDER = re.compile(r"(?:domain-)?(?:(?P<id>\d+)-)?(?P<name>.*)", re.DOTALL)
# As many bytes of a domain's name are in the directory's.
SHORT_NAME = 20

PROXMOX_FOLDER = "/var/run/qemu-server"

UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid

OTHERS = "owned by another user"


class FoundGuest(NamedTuple):
    """A guest that runs here. `address` is the way to its agent that is most likely free.

    manager: `libvirt`, `proxmox` or `qemu`, whoever made the socket.
    domain: its address by way of libvirt, if libvirt runs it.
    busy: some program is connected to the socket (libvirt always is).
    process: the QEMU that listens on the socket, where that is known; else 0.
    """

    name: str
    address: str
    socket: str
    manager: str
    domain: str = ""
    busy: bool = False
    process: int = 0

    def __str__(self) -> str:
        return self.address

    def is_called(self, name: str) -> bool:
        """By its name, or in Proxmox by its number."""
        return name == self.name or self.address == f"proxmox:{name}"


def find_guests(left_out: LeftOut | None = None) -> list[FoundGuest]:
    """By name. `left_out` gets what may not be read, and what nobody should believe."""
    left_out = LeftOut() if left_out is None else left_out
    users = believed_users(host_root())
    machines = running_machines(host_root(), left_out)
    in_use = connected_paths()
    found: dict[str, FoundGuest] = {}
    for guest in (
        *libvirt_guests(machines, users, left_out),
        *proxmox_guests(machines, users, left_out),
        *plain_guests(machines),
    ):
        if not is_believed(guest.socket, users, left_out):
            continue
        busy = connections_to(guest.socket, in_use) > 0
        by_libvirt = busy and guest.domain and libvirt_is_installed()
        address = guest.domain if by_libvirt else guest.address
        found.setdefault(os.path.realpath(guest.socket), guest._replace(address=address, busy=busy))
    return sorted(found.values())


def is_believed(path: str | Path, users: frozenset[int], left_out: LeftOut) -> bool:
    """Whose a file or directory is. One that we cannot see can only be refused when it is used."""
    try:
        others = owners(path) - users
    except OSError:
        return True
    if others:
        left_out.add(OTHERS, f"{path} of {user_names(others)}")
    return not others


def entries(folder: Path, users: frozenset[int], left_out: LeftOut) -> list[Path]:
    """The entries of a directory; none if it is missing or belongs to others."""
    try:
        found = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        left_out.unreadable(folder, error)
        return []
    return [folder / name for name in found] if is_believed(folder, users, left_out) else []


def libvirt_guests(
    machines: list[Machine], users: frozenset[int], left_out: LeftOut
) -> Iterator[FoundGuest]:
    for folder, _ in libvirt_folders():
        for entry in entries(folder, users, left_out):
            path = entry if entry.name.endswith(f".{AGENT_PORT}") else entry / AGENT_PORT
            guest = libvirt_guest(str(path), machines) if is_there(path, left_out) else None
            if guest:
                yield guest


def is_there(path: Path, left_out: LeftOut) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        left_out.unreadable(path, error)
        return False
    return True


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
            match = DOMAIN_FOLDER.fullmatch(inner.name)
            domain_id, short = match.group("id", "name") if match else (None, inner.name)
        elif real == inner:  # before libvirt 1.3
            domain_id, short = None, os.path.basename(path)[: -len(AGENT_PORT) - 1]
        else:
            continue
        name = whole_name(short, domain_id, machines)
        return FoundGuest(name, f"unix:{path}", path, "libvirt", f"libvirt:{uri}/{name}")
    return None


def whole_name(short: str, domain_id: str | None, machines: list[Machine]) -> str:
    """That of the one QEMU that it fits."""
    fitting = [machine for machine in machines if shortened(machine.name) == short]
    if len(fitting) > 1:  # names that begin alike
        fitting = [machine for machine in fitting if machine.domain_id == domain_id]
    return fitting[0].name if len(fitting) == 1 else short


def shortened(name: str) -> str:
    """As much of a domain's name as libvirt's directory has."""
    return os.fsencode(name)[:SHORT_NAME].decode(errors="ignore")


def proxmox_guests(
    machines: list[Machine], users: frozenset[int], left_out: LeftOut
) -> Iterator[FoundGuest]:
    for path in entries(host_path(PROXMOX_FOLDER), users, left_out):
        vmid, suffix = os.path.splitext(path.name)
        if suffix != ".qga":
            continue
        socket = f"{PROXMOX_FOLDER}/{path.name}"
        fitting = [machine for machine in machines if socket in machine.sockets]
        name, pid = (fitting[0].name, fitting[0].pid) if fitting else (vmid, 0)
        yield FoundGuest(name, f"proxmox:{vmid}", str(path), "proxmox", process=pid)


def plain_guests(machines: list[Machine]) -> Iterator[FoundGuest]:
    """By QEMU's arguments: also libvirt's guests, where its directories are closed to us."""
    for machine in machines:
        for path in map(str, map(host_path, machine.sockets)):
            guest = libvirt_guest(path, machines) or FoundGuest(
                machine.name, f"unix:{path}", path, "qemu"
            )
            yield guest._replace(process=machine.pid)


def check_listener(guest: FoundGuest, connection: socket.socket) -> None:
    """ConnectError unless the socket of a guest that was found is served by who is believed."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, uid, _ = UCRED.unpack(credentials)
    if uid not in believed_users(host_root()):
        raise ConnectError(guest.address, f"{user_name(uid)} listens there, not {guest.name}")
    same_numbers = host_root() == Path("/")  # another /proc may be of another pid namespace
    if guest.process and same_numbers and pid != guest.process:
        reason = f"process {pid} listens there, not {guest.name} (process {guest.process})"
        raise ConnectError(guest.address, reason)


def monitor_of(path: str) -> str:
    """The QMP socket of the QEMU that serves an agent's; "" if there is none."""
    real = os.path.realpath(path)
    for machine in running_machines(host_root()):
        if real in map(os.path.realpath, map(host_path, machine.sockets)) and machine.monitor:
            return str(host_path(machine.monitor))
    return ""


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
