"""The guest's network interfaces and routes."""

import sys
from typing import TYPE_CHECKING, Literal, cast

from qga import CommandGroup, NotRequired, UInt64, command
from qga.records import TypedDict

from ._sysfs import read_bytes, understood

if TYPE_CHECKING:
    from ._links import Address, Link

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


_COUNTERS = {
    "rx-bytes": 0,
    "rx-packets": 1,
    "rx-errs": 2,
    "rx-dropped": 3,
    "tx-bytes": 8,
    "tx-packets": 9,
    "tx-errs": 10,
    "tx-dropped": 11,
}  # the members, by their columns in /proc/net/dev


class Network(CommandGroup):
    """Network interfaces and routes."""

    @command(access="audit")
    def guest_network_get_interfaces(self) -> list[GuestNetworkInterface]:
        """List the network interfaces with their addresses and counters.

        An IPv4 address with a label such as eth0:1 is listed as a separate interface.
        """
        from ._links import links_and_addresses

        links, addresses = links_and_addresses()
        entries = {link.name: _interface(link) for link in links}
        names = {link.number: link.name for link in links}
        for address in addresses:
            base = names.get(address.number)
            if base is None:  # it was added meanwhile
                continue
            name = address.label or base
            entry = entries.get(name)
            if entry is None:
                entry = entries[name] = _alias(name, entries[base])
            entry.setdefault("ip-addresses", []).append(_ip_address(address))
        return list(entries.values())

    @command(access="audit")
    def guest_network_get_route(self) -> list[GuestNetworkRoute]:
        """List the routes of IPv4 and, if enabled, IPv6."""
        # /proc/net/ipv6_route does not exist if IPv6 is off. The other file begins with a heading.
        return [
            *understood(_ipv4_route, _lines("/proc/net/route")[1:]),
            *understood(_ipv6_route, _lines("/proc/net/ipv6_route")),
        ]


def _interface(link: "Link") -> GuestNetworkInterface:
    interface: GuestNetworkInterface = {
        "name": link.name,
        "hardware-address": link.hardware_address,
    }
    figures = {member: link.counters[column] for member, column in _COUNTERS.items()}
    interface["statistics"] = cast(GuestNetworkInterfaceStat, figures)
    return interface


def _alias(name: str, base: GuestNetworkInterface) -> GuestNetworkInterface:
    """An entry for a label, which has no counters."""
    return {"name": name, "hardware-address": base["hardware-address"]}


def _ip_address(address: "Address") -> GuestIpAddress:
    return {
        "ip-address": address.address,
        "ip-address-type": "ipv4" if address.version == 4 else "ipv6",
        "prefix": address.prefix,
    }


def _ipv4_route(line: list[str]) -> GuestNetworkRoute:
    """From /proc/net/route, with addresses as hexadecimal numbers in native byte order."""
    iface, destination, gateway, flags, refcnt, use, metric, mask, mtu, window, irtt, *_ = line
    return {
        "iface": iface,
        "destination": _ipv4(destination),
        "metric": int(metric) & 0xFFFFFFFF,  # printed as a signed number
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


def _ipv6_route(line: list[str]) -> GuestNetworkRoute:
    """From /proc/net/ipv6_route, with hexadecimal numbers."""
    destination, length, source, source_length, nexthop, metric, *counts, iface = line
    refcnt, use, flags = (int(count, 16) for count in counts)
    return {
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
    """The words of each line, split as bytes since names of interfaces may contain U+0085."""
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
