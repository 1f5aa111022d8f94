"""The guest's network interfaces and routes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Literal, TypedDict, cast

from qga import CommandGroup, NotRequired, UInt64, command

from ._sysfs import read_bytes

GuestIpAddressType = Literal["ipv4", "ipv6"]

GuestIpAddress = TypedDict(
    "GuestIpAddress",
    {"ip-address": str, "ip-address-type": GuestIpAddressType, "prefix": int},
)

GuestNetworkInterfaceStat = TypedDict(
    "GuestNetworkInterfaceStat",
    {
        "rx-bytes": UInt64,
        "rx-packets": UInt64,
        "rx-errs": UInt64,
        "rx-dropped": UInt64,
        "tx-bytes": UInt64,
        "tx-packets": UInt64,
        "tx-errs": UInt64,
        "tx-dropped": UInt64,
    },
)

GuestNetworkInterface = TypedDict(
    "GuestNetworkInterface",
    {
        "name": str,
        "hardware-address": NotRequired[str],
        "ip-addresses": NotRequired[list[GuestIpAddress]],
        "statistics": NotRequired[GuestNetworkInterfaceStat],
    },
)


class GuestNetworkRoute(TypedDict):
    iface: str
    destination: str
    metric: int
    gateway: NotRequired[str]
    mask: NotRequired[str]
    irtt: NotRequired[int]
    flags: NotRequired[UInt64]
    refcnt: NotRequired[int]
    use: NotRequired[int]
    window: NotRequired[int]
    mtu: NotRequired[int]
    desprefixlen: NotRequired[str]
    source: NotRequired[str]
    srcprefixlen: NotRequired[str]
    nexthop: NotRequired[str]
    version: int


_STATISTICS = {
    "rx-bytes": "bytes_recv",
    "rx-packets": "packets_recv",
    "rx-errs": "errin",
    "rx-dropped": "dropin",
    "tx-bytes": "bytes_sent",
    "tx-packets": "packets_sent",
    "tx-errs": "errout",
    "tx-dropped": "dropout",
}  # the members, by psutil's names


class Network(CommandGroup):
    """Interfaces, addresses, counters and routes."""

    @command(access="audit")
    def guest_network_get_interfaces(self) -> list[GuestNetworkInterface]:
        """Each interface: its hardware and IP addresses, and its counters since it came up.

        An IPv4 address with a label of its own, such as eth0:1, makes an entry of its own.
        """
        import socket

        import psutil

        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        addresses = psutil.net_if_addrs()
        names = [name for _, name in socket.if_nameindex()]
        for label in [each for each in addresses if each not in names]:
            names.append(label)
            addresses[label] += _hardware_addresses(addresses.get(label.partition(":")[0], []))
        return [_interface(name, addresses.get(name, []), counters.get(name)) for name in names]

    @command(access="audit")
    def guest_network_get_route(self) -> list[GuestNetworkRoute]:
        """The routing tables of IPv4 and, where the guest has it, IPv6."""
        return [*_ipv4_routes(), *_ipv6_routes()]


def _hardware_addresses(addresses: list[Any]) -> list[Any]:
    from socket import AF_PACKET

    return [address for address in addresses if address.family == AF_PACKET]


def _interface(name: str, addresses: list[Any], counters: Any) -> GuestNetworkInterface:
    from socket import AF_INET, AF_INET6, AF_PACKET

    interface: GuestNetworkInterface = {"name": name}
    found: list[GuestIpAddress] = []
    for address in addresses:
        if address.family == AF_PACKET:
            interface["hardware-address"] = address.address
        elif address.family == AF_INET:
            found.append(_ip_address(address, "ipv4"))
        elif address.family == AF_INET6:
            found.append(_ip_address(address, "ipv6"))
    if found:
        interface["ip-addresses"] = found
    if counters is not None:
        figures = {member: getattr(counters, field) for member, field in _STATISTICS.items()}
        interface["statistics"] = cast(GuestNetworkInterfaceStat, figures)
    return interface


def _ip_address(address: Any, kind: GuestIpAddressType) -> GuestIpAddress:
    from socket import inet_pton

    mask = inet_pton(address.family, address.netmask) if address.netmask else b""
    return {
        "ip-address": address.address.partition("%")[0],  # a link-local one names its link
        "ip-address-type": kind,
        "prefix": bin(int.from_bytes(mask, "big")).count("1"),
    }


def _ipv4_routes() -> Iterator[GuestNetworkRoute]:
    """/proc/net/route: addresses as hexadecimal numbers in the machine's byte order."""
    for line in _lines("/proc/net/route")[1:]:
        iface, destination, gateway, flags, refcnt, use, metric, mask, mtu, window, irtt = line
        yield {
            "iface": iface,
            "destination": _ipv4(destination),
            "metric": int(metric) & 0xFFFFFFFF,  # printed as if it had a sign
            "gateway": _ipv4(gateway),
            "mask": _ipv4(mask),
            "irtt": int(irtt),
            "flags": int(flags, 16),
            "refcnt": int(refcnt),
            "use": int(use),
            "window": int(window),
            "mtu": int(mtu),
            "version": 4,
        }


def _ipv6_routes() -> Iterator[GuestNetworkRoute]:
    """/proc/net/ipv6_route: all numbers hexadecimal; no file where IPv6 is off."""
    for line in _lines("/proc/net/ipv6_route"):
        destination, length, source, source_length, nexthop, metric, *counts, iface = line
        refcnt, use, flags = (int(count, 16) for count in counts)
        yield {
            "iface": iface,
            "destination": _ipv6(destination),
            "metric": int(metric, 16),
            "desprefixlen": str(int(length, 16)),
            "source": _ipv6(source),
            "srcprefixlen": str(int(source_length, 16)),
            "nexthop": _ipv6(nexthop),
            "flags": flags,
            "refcnt": refcnt,
            "use": use,
            "version": 6,
        }


def _lines(path: str) -> list[list[str]]:
    """The words of each line, split as bytes: the name of an interface may hold U+0085."""
    try:
        lines = read_bytes(path).splitlines()
    except FileNotFoundError:
        return []
    return [[word.decode("utf-8", "replace") for word in line.split()] for line in lines]


def _ipv4(number: str) -> str:
    from socket import inet_ntoa

    return inet_ntoa(int(number, 16).to_bytes(4, sys.byteorder))


def _ipv6(digits: str) -> str:
    from socket import AF_INET6, inet_ntop

    return inet_ntop(AF_INET6, bytes.fromhex(digits))
