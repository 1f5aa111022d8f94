"""Finds the guests of this host that have an agent port or a hybrid vsock socket.

They are run by libvirt, Proxmox VE, plain QEMU, Firecracker or Cloud Hypervisor.

Finding connects to nothing: it reads some directories and /proc. In a container that has the
host's / mounted, `$QGA_HOST_ROOT` is the mount point.

What must stay true: a guest is found only if its process, its socket and the directory that names
it belong to a trusted user (qga.client.hosts.trust). Anything that cannot be read, or disappears
meanwhile, does not hide other guests. A socket may be replaced after it was found, so
`check_listener` checks again who is at its other end.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from qga.client.errors import ConnectError
from qga.client.hosts.processes import AGENT_PORT, Machine, running_machines
from qga.client.hosts.trust import LeftOut, believed_users, owners, user_name, user_names
from qga.client.sockets import connected_paths, connections_to

HYBRID = "hvsock"
VSOCK_PORT = 1234  # of qemu-guest-agent-vsock.socket

SYSTEM, SESSION = "qemu:///system", "qemu:///session"

# libvirt's directory for a domain: domain-1-web, 1-web.
DOMAIN_FOLDER = re.compile(r"(?:domain-)?(?:(?P<id>\d+)-)?(?P<name>.*)", re.DOTALL)
# libvirt puts this many bytes of a domain's name into the name of the directory.
SHORT_NAME = 20

PROXMOX_FOLDER = "/var/run/qemu-server"

UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid

OTHERS = "owned by another user"


class FoundGuest(NamedTuple):
    """A guest that runs on this host.

    address: of the agent, by the way that is most likely free.
    manager: `libvirt`, `proxmox`, `qemu`, `firecracker` or `cloud-hypervisor`, whichever created
        the socket.
    domain: the address through libvirt, if libvirt runs the guest.
    busy: whether some program is connected to the socket (libvirt always is).
    process: the pid of the monitor that listens on the socket; 0 if it is not known.
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
        """Whether this is its name, or its VMID in Proxmox VE."""
        return name == self.name or self.address == f"proxmox:{name}"


class Monitor(NamedTuple):
    """The QMP socket of a guest that was found, and the process that listens there."""

    name: str
    address: str
    path: str
    process: int

    def check(self, connection: socket.socket) -> None:
        """Raise ConnectError unless the connection leads to that process."""
        check_listener(self, connection)


def find_guests(left_out: LeftOut | None = None) -> list[FoundGuest]:
    """The guests, sorted by name. `left_out` collects what cannot be read or is not trusted."""
    left_out = LeftOut() if left_out is None else left_out
    users = believed_users(host_root())
    machines = running_machines(host_root(), left_out)
    in_use = connected_paths()
    found: dict[str, FoundGuest] = {}
    for guest in (
        *libvirt_guests(machines, users, left_out),
        *proxmox_guests(machines, users, left_out),
        *plain_guests(machines),
        *vsock_guests(machines),
    ):
        if not is_believed(guest.socket, users, left_out):
            continue
        busy = connections_to(guest.socket, in_use) > 0
        by_libvirt = busy and guest.domain and libvirt_is_installed()
        address = guest.domain if by_libvirt else guest.address
        found.setdefault(os.path.realpath(guest.socket), guest._replace(address=address, busy=busy))
    return sorted(found.values())


def is_believed(path: str | Path, users: frozenset[int], left_out: LeftOut) -> bool:
    """Whether a file or directory belongs to a trusted user, as far as can be seen."""
    try:
        others = owners(path) - users
    except OSError:
        return True  # whoever uses it gets the error
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
    """The directories where libvirt creates sockets of channels, each with its URI."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    yield host_path("/var/lib/libvirt/qemu/channel/target"), SYSTEM
    yield host_path("/run/libvirt/qemu/channel"), SYSTEM
    yield host_path(f"{config}/libvirt/qemu/channel/target"), SESSION
    yield host_path(f"{runtime_folder()}/libvirt/qemu/run/channel"), SESSION


def libvirt_sockets(uri: str) -> tuple[str, ...]:
    """The directories in which the daemon of this URI listens if nothing else is configured."""
    if uri == SESSION:
        return (f"{runtime_folder()}/libvirt",)
    return ("/run/libvirt", "/var/run/libvirt") if uri == SYSTEM else ()


def runtime_folder() -> str:
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def libvirt_guest(path: str, machines: list[Machine]) -> FoundGuest | None:
    """The domain that has this agent socket; None if the socket is not libvirt's."""
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
    """The full name, from the one QEMU that it fits; else the short one."""
    fitting = [machine for machine in machines if shortened(machine.name) == short]
    if len(fitting) > 1:  # several names have the same first 20 bytes
        fitting = [machine for machine in fitting if machine.domain_id == domain_id]
    return fitting[0].name if len(fitting) == 1 else short


def shortened(name: str) -> str:
    """The part of a domain's name that is in libvirt's directory."""
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
    """From QEMU's arguments. Also libvirt's guests, whose directories only root may read."""
    for machine in machines:
        for path in map(str, map(host_path, machine.sockets)):
            guest = libvirt_guest(path, machines) or FoundGuest(
                machine.name, f"unix:{path}", path, "qemu"
            )
            yield guest._replace(process=machine.pid)


def vsock_guests(machines: list[Machine]) -> Iterator[FoundGuest]:
    """By the usual port of an agent, of guests that are not found by a port of QEMU's."""
    for monitor in machines:
        for vsock in monitor.vsocks:
            path = str(host_path(vsock.path))
            users = [each for each in machines if vsock.control and vsock.control in each.clients]
            if any(user.sockets for user in users):
                continue
            name = users[0].name if users else vsock.name
            address = f"{HYBRID}:{path}:{VSOCK_PORT}"
            yield FoundGuest(name, address, path, monitor.kind, process=monitor.pid)


def check_listener(guest: FoundGuest | Monitor, connection: socket.socket) -> None:
    """Raise ConnectError unless a trusted process listens on the socket of this guest.

    It has to be the process that was found, which is a QEMU or another monitor.
    """
    pid, uid = listener(connection)
    if uid not in believed_users(host_root()):
        raise ConnectError(guest.address, f"{user_name(uid)} listens there, not {guest.name}")
    if guest.process and has_our_numbers() and pid != guest.process:
        reason = f"process {pid} listens there, not {guest.name} (process {guest.process})"
        raise ConnectError(guest.address, reason)


def listener(connection: socket.socket) -> tuple[int, int]:
    """The process that listens at the other end, and its user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, uid, _ = UCRED.unpack(credentials)
    return pid, uid


def has_our_numbers() -> bool:
    """Whether processes have the numbers that we see: another /proc may be of another namespace."""
    return host_root() == Path("/")


def same_machine(path: str, monitor: str) -> Callable[[socket.socket], None]:
    """What refuses a QMP connection if its QEMU is found, and is not that of this agent socket."""

    def check(connection: socket.socket) -> None:
        pid, _ = listener(connection)
        machines = running_machines(host_root()) if path and has_our_numbers() else []
        ours = [machine for machine in machines if serves(machine, path)]
        others = [machine for machine in machines if machine.pid == pid]
        if ours and others and others[0].pid not in [machine.pid for machine in ours]:
            names = f"{others[0].name} (process {pid}), not of {ours[0].name}"
            raise ConnectError(f"unix:{monitor}", f"this is the QMP socket of {names}")

    return check


def serves(machine: Machine, path: str) -> bool:
    """Whether a machine has this agent socket."""
    return os.path.realpath(path) in map(os.path.realpath, map(host_path, machine.sockets))


def monitor_of(path: str) -> Monitor | None:
    """The QMP socket of the QEMU that serves this agent socket; None if there is none."""
    for machine in running_machines(host_root()):
        if machine.monitor and serves(machine, path):
            monitor = str(host_path(machine.monitor))
            return Monitor(machine.name, f"unix:{monitor}", monitor, machine.pid)
    return None


def proxmox_socket(vmid: str) -> str:
    return str(host_path(f"{PROXMOX_FOLDER}/{vmid}.qga"))


def libvirt_domain_of(path: str) -> str:
    """The address through libvirt of the guest with this socket; "" if it is not libvirt's."""
    guest = libvirt_guest(path, running_machines(host_root()))
    return guest.domain if guest else ""


def libvirt_is_installed() -> bool:
    return importlib.util.find_spec("libvirt_qemu") is not None


def host_root() -> Path:
    return Path(os.environ.get("QGA_HOST_ROOT") or "/")


def host_path(path: str) -> Path:
    """A path of the host as seen from here, perhaps inside a container."""
    return host_root() / path.lstrip("/")
