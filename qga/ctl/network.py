"""The guest's network."""

from collections.abc import Iterator

import typer

from qga.client.agent import GuestAgent
from qga.client.results import InterfaceStatistics, NetworkInterface, Route
from qga.ctl.app import answer, command
from qga.ctl.command import LOOK
from qga.ctl.tables import Row, show_table
from qga.ctl.units import size

IPV6_ANY = "::"
IPV4_ANY = "0.0.0.0"  # noqa: S104 - not to bind to


@command(LOOK)
def net(context: typer.Context) -> None:
    """List network interfaces, their addresses and their traffic.

    \b
    Examples:
      qgactl net web
      qgactl net web --json
    """
    answer(context, GuestAgent.interfaces, show_interfaces)


def show_interfaces(interfaces: list[NetworkInterface]) -> None:
    numbers = ("Received", "Sent", "Errors", "Dropped")
    heads = ("Interface", "Hardware address", "Addresses", *numbers)
    rows = (row for interface in interfaces for row in interface_rows(interface))
    show_table(heads, rows, right=numbers)


def interface_rows(interface: NetworkInterface) -> Iterator[Row]:
    """A row for each address; the first also contains the rest of the interface."""
    addresses = [f"{each.ip_address}/{each.prefix}" for each in interface.ip_addresses]
    first = addresses[0] if addresses else None
    yield (interface.name, interface.hardware_address, first, *traffic(interface.statistics))
    for address in addresses[1:]:
        yield ("", "", address, "", "", "", "")


def traffic(sums: "InterfaceStatistics | None") -> Row:
    if sums is None:
        return (None,) * 4
    return (
        size(sums.rx_bytes),
        size(sums.tx_bytes),
        str(sums.rx_errs + sums.tx_errs),
        str(sums.rx_dropped + sums.tx_dropped),
    )


@command(LOOK)
def routes(context: typer.Context) -> None:
    """List the guest's routes.

    \b
    Examples:
      qgactl routes web
    """
    answer(context, GuestAgent.routes, show_routes)


def show_routes(routes: list[Route]) -> None:
    rows = (
        (destination(route), gateway(route), route.iface, str(route.metric)) for route in routes
    )
    show_table(("Destination", "Gateway", "Interface", "Metric"), rows, right=("Metric",))


def destination(route: Route) -> str:
    # The agent reports IPv4 masks in dotted form, and IPv6 prefixes as numbers (QAPI).
    prefix = route.desprefixlen if route.version == 6 else mask_length(route.mask)
    if prefix == "0":
        return "default" if route.version == 4 else "default (IPv6)"
    return f"{route.destination}/{prefix}" if prefix else route.destination


def mask_length(mask: "str | None") -> "str | None":
    """24 for 255.255.255.0; anything else is returned as it is."""
    try:
        number = int.from_bytes(bytes(map(int, (mask or "").split("."))), "big")
    except ValueError:
        return mask
    return str(bin(number).count("1"))


def gateway(route: Route) -> "str | None":
    """The gateway; None for networks that are directly connected."""
    way = route.nexthop if route.version == 6 else route.gateway
    # The kernel's tables have an unspecified gateway for networks that are directly connected.
    return None if way in (IPV4_ANY, IPV6_ANY) else way
