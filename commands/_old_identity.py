"""What still uses the old identity of a guest until it is renewed, restarted or removed."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from itertools import islice

from qga.wording import counted

from ._mounts import decode
from ._sysfs import read_bytes, understood

MOST_REMAINING = 64
"""Entries of a report."""

_MOST_PEERS = 5

_SSH_PORT = 22
_ESTABLISHED = b"01"  # TCP_ESTABLISHED of <net/tcp_states.h>
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")

_MOUNTS = "/proc/self/mountinfo"
_NETWORK_TYPES = ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "fuse.sshfs")

# What names a machine to servers, beside what qga-set-identity changes.
_OTHER_NAMES = {
    "/var/lib/dhcpcd/duid": "DHCP client ID (DUID) of dhcpcd",
    "/etc/dhcpcd.duid": "DHCP client ID (DUID) of dhcpcd",
    "/etc/iscsi/initiatorname.iscsi": "iSCSI initiator name",
    "/etc/nvme/hostnqn": "NVMe host name",
    "/etc/krb5.keytab": "Kerberos keys of the old host name",
}
_JOURNAL = "/var/log/journal"
_NETWORKD_LEASES = "/run/systemd/netif/leases"
_NETWORK_MANAGER = "/run/NetworkManager"


def remaining(old_machine_id: str) -> list[str]:
    """Texts, at most MOST_REMAINING. old_machine_id: "" unless the machine ID was changed."""
    kinds = [_ssh_connections(), _network_mounts(), _other_names()]
    if old_machine_id:
        kinds.append(_users_of_machine_id(old_machine_id))
    return list(islice((text for kind in kinds for text in kind), MOST_REMAINING))


def _ssh_connections() -> Iterator[str]:
    peers = [peer for table in _TABLES for peer in _peers(table)]
    if peers:
        named = ", ".join(sorted(set(peers))[:_MOST_PEERS])
        number = counted(len(peers), "ssh connection")
        yield f"{number} on port {_SSH_PORT}, made with the old host keys, from {named}"


def _peers(table: str) -> Iterator[str]:
    """The other ends of connections to sshd."""
    try:
        lines = read_bytes(table).splitlines()[1:]
    except OSError:  # IPv6 is off
        return
    yield from filter(None, understood(_peer, lines))


def _peer(line: bytes) -> str | None:
    """The other end, if it is a connection to sshd. Raises ValueError."""
    _number, local, remote, state, _ = line.split(None, 4)
    if state == _ESTABLISHED and int(local.rpartition(b":")[2], 16) == _SSH_PORT:
        return _address(remote.partition(b":")[0])
    return None


def _address(digits: bytes) -> str:
    """An address of /proc/net: words of 32 bits in native byte order."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, raw)


def _network_mounts() -> Iterator[str]:
    for kind, source, path in understood(_mounted, read_bytes(_MOUNTS).split(b"\n")):
        if kind in _NETWORK_TYPES:
            yield f"{kind} mount of {source} at {path}"


def _mounted(line: bytes) -> tuple[str, str, str]:
    """The type, the source and the mount point. Raises ValueError or LookupError."""
    before, _, after = line.partition(b" - ")
    kind, source = after.split(b" ")[:2]
    return decode(kind), decode(source), decode(before.split(b" ")[4])


def _other_names() -> Iterator[str]:
    for path, what in _OTHER_NAMES.items():
        if os.path.exists(path):
            yield f"{what} in {path}, which stays"


def _users_of_machine_id(old: str) -> Iterator[str]:
    if os.path.isdir(f"{_JOURNAL}/{old}"):
        yield f"the journal in {_JOURNAL}/{old}, until systemd-journald is restarted"
    for number in _names(_NETWORKD_LEASES):
        if number.isdecimal():
            yield (
                f"the DHCP client ID of {_interface(int(number))}, until systemd-networkd is "
                "restarted"
            )
    if os.path.isdir(_NETWORK_MANAGER):
        yield "DHCP client IDs of NetworkManager, until its connections are activated again"


def _interface(number: int) -> str:
    try:
        return socket.if_indextoname(number)
    except OSError:
        return f"interface {number}"


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
