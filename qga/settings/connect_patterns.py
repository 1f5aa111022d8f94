"""Patterns of `[connect] allow`: the services that qga-connect may connect to.

    127.0.0.1:22   10.0.0.0/8:443   [::1]:8000-8100   *:80   127.0.0.1:*   unix:/run/docker.sock

Addresses are numbers: whoever answers for a name could make it mean any of them. The path after
`unix:` is a pattern of qga.settings.patterns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Optional

from qga.records import NamedTuple

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

UNIX = "unix:"
LAST_PORT = 65535

_MAPPED_PREFIX = 96  # of ::ffff:0:0/96, the IPv4 addresses as IPv6 (RFC 4291)

_FORM = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):(\*|\d+)(?:-(\d+))?")


class Target(NamedTuple):
    """What a rule allows: sockets, or ports of a network.

    path: None for a rule about addresses. network: None for all.
    """

    path: Optional[re.Pattern[str]] = None
    network: Optional[IPv4Network | IPv6Network] = None
    first: int = 1
    last: int = LAST_PORT

    def allows_socket(self, path: str) -> bool:
        return self.path is not None and bool(self.path.fullmatch(path))

    def allows_address(self, address: str, port: int) -> bool:
        from ipaddress import ip_address

        if self.path is not None or not self.first <= port <= self.last:
            return False
        return self.network is None or ip_address(address) in self.network


def compile_target(text: str) -> Target:
    """Compile a rule. Raises ValueError."""
    if text.startswith(UNIX):
        from qga.settings.patterns import compile_path

        return Target(compile_path(text[len(UNIX) :]))
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(
            f"'{text}' is not a valid target; use 127.0.0.1:22, 10.0.0.0/8:443, "
            "[::1]:8000-8100, *:80 or unix:/run/docker.sock, with ; between several"
        )
    in_brackets, plain, first, last = found.groups()
    if first == "*":
        if last is not None:
            raise ValueError(f"'{text}' is not a valid target: a range of ports has two numbers")
        return Target(None, _network(in_brackets or plain, text))
    target = Target(None, _network(in_brackets or plain, text), int(first), int(last or first))
    if not 1 <= target.first <= target.last <= LAST_PORT:
        raise ValueError(f"'{text}': ports are numbers from 1 to {LAST_PORT}")
    return target


def _network(address: str, text: str) -> IPv4Network | IPv6Network | None:
    from ipaddress import ip_network

    if address == "*":
        return None
    if "%" in address:
        raise ValueError(f"'{text}': a rule names no interface; use {address.partition('%')[0]}")
    try:
        return _unmapped(ip_network(address))
    except ValueError as error:
        raise ValueError(f"'{text}': {error}; use {_right(address)}") from None


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """IPv4 addresses that are written as IPv6 as what they are: addresses are compared as IPv4."""
    from ipaddress import ip_network

    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_PREFIX:
        return network
    return ip_network((int(mapped), network.prefixlen - _MAPPED_PREFIX))


def _right(address: str) -> str:
    """What would be right where `address` is neither an address nor a network."""
    from ipaddress import ip_network

    try:
        return str(ip_network(address, strict=False))
    except ValueError:
        return "an address, not a name"
