"""Addresses of agents, and how to connect to each.

    unix:PATH             QEMU's socket of the channel, or an agent that listens
    vsock:CID:PORT        an agent that listens on vsock in the guest with this CID
    hvsock:PATH:PORT      the same, through the socket of Firecracker or Cloud Hypervisor
    libvirt:[URI/]DOMAIN  through libvirt, which keeps the sockets of its guests open; the domain
                          is the part after the last slash, because its name contains none:
                          libvirt:web, libvirt:qemu+ssh://root@host/system/web
    proxmox:VMID          the socket of Proxmox VE
    NAME                  a guest that runs on this host, as discovery finds it

A path is trusted as given. A name leads only to users that discovery trusts, and whoever listens
is checked again after connecting.

To add a form, write a function here and add a line to FORMS.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from difflib import get_close_matches
from typing import NamedTuple

from qga.client.errors import ConnectError
from qga.client.hosts import discovery
from qga.client.hosts.trust import LeftOut
from qga.client.hybrid_vsock import Check, believe, connect_hybrid
from qga.client.libvirt_transport import open_libvirt
from qga.client.sockets import (
    WAITING,
    connect_unix,
    connect_vsock,
    connected_paths,
    connections_to,
)
from qga.client.texts import number_in
from qga.client.transports import NO_AGENT, Queue, SocketTransport, Transport
from qga.wording import suggestion

# Connects before the deadline (of time.monotonic()).
Opener = Callable[[float], Transport]

# Guests that a message names.
MOST_NAMED = 10

LARGEST_CID = LARGEST_PORT = 2**32 - 1

# A URI that was cut at its own path: qemu+ssh://host of qemu+ssh://host/system, without a domain.
URI_WITHOUT_PATH = re.compile(r"[^/]+:/(/[^/]*)?")


class Form(NamedTuple):
    """The syntax of the part after the colon, and the function that makes an opener of it."""

    place: str
    opener: Callable[[str, int], Opener]


def transport_opener(address: str | discovery.FoundGuest, max_reply: int) -> Opener:
    """Return the opener for `address`. Raises ValueError if it is not an address."""
    if isinstance(address, discovery.FoundGuest):
        return guest_opener(address, max_reply)
    scheme, colon, place = address.partition(":")
    if not colon and is_name(scheme):
        return lambda deadline: open_named(address, max_reply, deadline)
    if scheme not in FORMS or not place:
        known = ", ".join(f"{name}:{form.place}" for name, form in FORMS.items())
        raise ValueError(
            f"'{address}' is not the address of an agent, expected: {known}, "
            "or the name of a guest on this host"
        )
    return FORMS[scheme].opener(place, max_reply)


def is_name(word: str) -> bool:
    """Whether this is a name to look up among the guests of this host."""
    return bool(word) and word not in FORMS and not {":", "/"} & set(word)


def resolve(name: str) -> discovery.FoundGuest:
    """The guest of this host with this name. Raises ConnectError unless there is exactly one."""
    left_out = LeftOut()
    guests = discovery.find_guests(left_out)
    fitting = [guest for guest in guests if guest.is_called(name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        addresses = few([guest.address for guest in fitting])
        raise ConnectError(name, f"several guests have this name; use an address: {addresses}")
    names = list(dict.fromkeys(guest.name for guest in guests))
    reasons = [
        "no running guest with this name has an agent port",
        f"available: {few(names) or 'none'}",
        suggestion(get_close_matches(name, names)),
        *left_out.lines(),
    ]
    raise ConnectError(name, "; ".join(filter(None, reasons)))


def few(words: list[str]) -> str:
    more = len(words) - MOST_NAMED
    return ", ".join(words[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def open_named(name: str, max_reply: int, deadline: float) -> Transport:
    return guest_opener(resolve(name), max_reply)(deadline)


def guest_opener(guest: discovery.FoundGuest, max_reply: int) -> Opener:
    if guest.address == guest.domain:
        return transport_opener(guest.address, max_reply)

    def check(connection: socket.socket) -> None:
        discovery.check_listener(guest, connection)

    scheme, _, place = guest.address.partition(":")
    if scheme == discovery.HYBRID:
        return hybrid_vsock_opener(place, max_reply, check)
    return socket_opener(guest.address, guest.socket, max_reply, check)


def unix_opener(path: str, max_reply: int) -> Opener:
    return socket_opener(f"unix:{path}", path, max_reply)


def proxmox_opener(vmid: str, max_reply: int) -> Opener:
    if not (vmid.isascii() and vmid.isdecimal()):
        raise ValueError(f"'proxmox:{vmid}': expected proxmox:VMID, a number")
    return socket_opener(f"proxmox:{vmid}", discovery.proxmox_socket(vmid), max_reply)


def socket_opener(
    address: str,
    path: str,
    max_reply: int,
    check: Check = believe,
) -> Opener:
    """For QEMU's end of a channel, or an agent that listens. `check` may refuse the peer."""

    def opener(_deadline: float) -> Transport:
        sock = connect_unix(address, path)
        try:
            check(sock)
        except ConnectError:
            sock.close()
            raise
        queue = Queue(lambda: others_wait(path), opener)
        return SocketTransport(sock, max_reply, lambda: silence_of(path), queue)

    return opener


def others_wait(path: str) -> bool:
    """Whether clients wait for this socket, which serves us."""
    return connections_to(path, connected_paths([WAITING])) > 0


def silence_of(path: str) -> str:
    """Why no reply may come from this socket, to which we are connected."""
    if connections_to(path, connected_paths()) <= 1:  # our own connection
        return NO_AGENT
    if not others_wait(path):  # so it is not QEMU, which accepts one
        return "the agent has accepted the connection, and may be busy or stuck"
    reason = (
        "another program is connected to this socket: QEMU serves one client at a time, an agent "
        "that listens up to max-clients"
    )
    holder = discovery.libvirt_domain_of(path)
    return f"{reason}; libvirt has it open: use {holder}" if holder else reason


def vsock_opener(place: str, max_reply: int) -> Opener:
    cid, port = cid_and_port(place)
    return lambda deadline: SocketTransport(connect_vsock(cid, port, deadline), max_reply)


def cid_and_port(place: str) -> tuple[int, int]:
    first, _, second = place.partition(":")
    cid = number_in(range(LARGEST_CID + 1), first)
    port = number_in(range(LARGEST_PORT + 1), second)
    if cid is None or port is None:
        raise ValueError(f"'vsock:{place}': expected vsock:CID:PORT, two numbers")
    return cid, port


def hybrid_vsock_opener(place: str, max_reply: int, check: Check = believe) -> Opener:
    path, port = path_and_port(place)
    return lambda deadline: SocketTransport(connect_hybrid(path, port, deadline, check), max_reply)


def path_and_port(place: str) -> tuple[str, int]:
    path, _, digits = place.rpartition(":")
    port = number_in(range(LARGEST_PORT + 1), digits)
    if not path or port is None:
        raise ValueError(
            f"'hvsock:{place}': expected hvsock:PATH:PORT, such as hvsock:/run/web.vsock:1234"
        )
    return path, port


def libvirt_opener(place: str, _max_reply: int) -> Opener:
    """Without `max_reply`: libvirt limits replies itself, to 10 MiB."""
    uri, domain = uri_and_domain(place)
    return lambda deadline: open_libvirt(uri, domain, deadline)


def uri_and_domain(place: str) -> tuple[str, str]:
    """Split the part after `libvirt:`. An empty URI means libvirt's default."""
    uri, _, domain = place.rpartition("/")
    if not domain or URI_WITHOUT_PATH.fullmatch(uri):
        raise ValueError(
            f"'libvirt:{place}' lacks the domain, expected: libvirt:DOMAIN or libvirt:URI/DOMAIN, "
            "such as libvirt:qemu:///system/web"
        )
    return uri, domain


FORMS = {
    "unix": Form("PATH", unix_opener),
    "vsock": Form("CID:PORT", vsock_opener),
    "hvsock": Form("PATH:PORT", hybrid_vsock_opener),
    "libvirt": Form("[URI/]DOMAIN", libvirt_opener),
    "proxmox": Form("VMID", proxmox_opener),
}
