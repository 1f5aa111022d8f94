"""Network interfaces and their addresses, from the kernel.

This takes half the time of psutil, whose getifaddrs(3) makes the kernel list each link with all its
settings. Names and counters come from /proc/net/dev, addresses from rtnetlink(7), and the rest from
netdevice(7).
"""

import os
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Optional

from qga.records import NamedTuple

from ._sysfs import read_kept

if TYPE_CHECKING:
    from socket import socket


class Link(NamedTuple):
    """An interface.

    number: its index.
    hardware_address: always six bytes: the first six of a longer address, zeros if there is none.
    counters: the columns of /proc/net/dev.
    """

    number: int
    name: str
    hardware_address: str
    counters: list[int]


class Address(NamedTuple):
    """An IP address.

    number: index of its link.
    label: the name of the link, or a label such as eth0:1. IPv4 only.
    version: 4 or 6.
    """

    number: int
    label: Optional[str]
    version: int
    address: str
    prefix: int


# <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_addr.h>
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_RTM_GETADDR, _NLM_F_REQUEST, _NLM_F_DUMP = 22, 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE, RTM_NEWADDR, RTM_DELADDR = 2, 3, 20, 21
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL = 1, 2, 3
_ASK_ADDRESSES = _HEADER.pack(
    _HEADER.size + _IFADDRMSG.size, _RTM_GETADDR, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0
) + _IFADDRMSG.pack(0, 0, 0, 0, 0)
_ANSWER_SIZE = 32 * 1024  # the most that the kernel sends at once

# <linux/sockios.h>, struct ifreq of <linux/if.h>
_SIOCGIFINDEX, _SIOCGIFHWADDR = 0x8933, 0x8927
_IFREQ = struct.Struct("=16s24x")
_IFREQ_INDEX = struct.Struct("=16si20x")
_IFREQ_HWADDR = struct.Struct("=16sH6s16x")


def open_rtnetlink(groups: int = 0) -> "socket":
    """A connection to rtnetlink(7) that is subscribed to these multicast groups."""
    from socket import AF_NETLINK, SOCK_RAW, socket

    kernel = socket(AF_NETLINK, SOCK_RAW)
    if groups:
        kernel.bind((0, groups))
    return kernel


def links_and_addresses() -> tuple[list[Link], list[Address]]:
    """The interfaces by index, and the addresses in the kernel's order."""
    with open_rtnetlink() as kernel:
        return sorted(_links(kernel)), list(_addresses(kernel))


def _links(kernel: "socket") -> Iterator[Link]:
    from fcntl import ioctl

    for line in read_kept("/proc/net/dev").split(b"\n")[2:-1]:
        name, _, counters = line.rpartition(b":")
        name = name.strip()
        request = _IFREQ.pack(name)
        try:
            _, index = _IFREQ_INDEX.unpack(ioctl(kernel, _SIOCGIFINDEX, request))
            _, _, raw = _IFREQ_HWADDR.unpack(ioctl(kernel, _SIOCGIFHWADDR, request))
        except OSError:  # it was removed in the meantime
            continue
        yield Link(index, os.fsdecode(name), raw.hex(":"), [int(n) for n in counters.split()])


def _addresses(kernel: "socket") -> Iterator[Address]:
    for answer in ask_for_addresses(kernel):
        yield from _understand(answer)


def ask_for_addresses(kernel: "socket") -> Iterator[bytes]:
    """The pieces of the kernel's answer. Raises OSError."""
    kernel.send(_ASK_ADDRESSES)
    done = False
    while not done:
        answer = kernel.recv(_ANSWER_SIZE)
        done = _is_last(answer)
        yield answer


@lru_cache(maxsize=8)
def _is_last(answer: bytes) -> bool:
    for kind, at, _ in messages(answer):
        if kind == _NLMSG_ERROR:
            number = -int.from_bytes(answer[at : at + 4], sys.byteorder, signed=True)
            raise OSError(number, os.strerror(number))
        if kind == _NLMSG_DONE:
            return True
    return False


@lru_cache(maxsize=8)
def _understand(answer: bytes) -> list[Address]:
    """The addresses in a piece of the kernel's answer.

    Cached, since addresses change far less often than they are asked for.
    """
    found = (message for message in messages(answer) if message[0] == RTM_NEWADDR)
    return [address_in(answer, at, end) for _, at, end in found]


def messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """For each message: its type, and where its content begins and ends."""
    at = 0
    while at < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, at + _HEADER.size, at + length
        at += length + 3 & ~3


def address_in(data: bytes, at: int, end: int) -> Address:
    """The address in the content of a message."""
    from socket import AF_INET, inet_ntop

    number, label, family, raw, prefix = _parse(data, at, end)
    return Address(number, label, 4 if family == AF_INET else 6, inet_ntop(family, raw), prefix)


def flags_in(data: bytes, at: int) -> int:
    """The flags of the address there."""
    return _IFADDRMSG.unpack_from(data, at)[2]  # type: ignore[no-any-return]


def _parse(answer: bytes, at: int, end: int) -> tuple[int, Optional[str], int, bytes, int]:
    """Link, label, family, bytes of the address, and prefix."""
    family, prefix, _flags, _scope, number = _IFADDRMSG.unpack_from(answer, at)
    at += _IFADDRMSG.size
    found = {}
    while at < end:
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        found[kind] = answer[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    raw = (
        found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    )  # IFA_ADDRESS is the peer's on point-to-point links
    label = found.get(_IFA_LABEL)
    return number, os.fsdecode(label.rstrip(b"\0")) if label else None, family, raw, prefix
