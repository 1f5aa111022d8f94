"""Figures that QEMU's agent does not report, compared with tools in the guest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .agent_socket import AgentSocket
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

LARGE = 2**32 - 6  # metrics have 32 bits, without a sign
SETUP = f"""
systemctl start guest-network
ip route add 198.51.100.0/24 via 10.0.2.9 metric {LARGE} advmss 1400 window 4096
ip -6 address add 2001:db8::2/64 dev eth0 nodad
ip -6 route add 2001:db8:1::/48 via 2001:db8::1 metric {LARGE}
"""
CLEANUP = """
ip route delete 198.51.100.0/24
ip -6 route delete 2001:db8:1::/48
ip -6 address delete 2001:db8::2/64 dev eth0
"""
UP, GATEWAY = 1, 2  # <linux/route.h>


@pytest.fixture(scope="module")
def routes(guest: Guest) -> Iterator[None]:
    guest.run(["/bin/sh", "-ec", SETUP])
    yield
    guest.run(["/bin/sh", "-ec", CLEANUP])


def told(agent: AgentSocket, version: int) -> list[dict[str, Any]]:
    routes = agent.execute("guest-network-get-route")
    return [route for route in routes if route["version"] == version]


@pytest.mark.usefixtures("routes")
def test_routes_of_ipv4(guest: Guest, agent: AgentSocket) -> None:
    shown = json.loads(guest.run(["ip", "-json", "-4", "route", "show"]).stdout)
    expected = {
        (route["dst"].replace("default", "0.0.0.0/0"), route["dev"], route.get("metric", 0))
        for route in shown
    }
    found = told(agent, 4)
    assert {
        (f"{each['destination']}/{length(each['mask'])}", each["iface"], each["metric"])
        for each in found
    } == expected
    (route,) = (each for each in found if each["destination"] == "198.51.100.0")
    assert route == {
        "iface": "eth0",
        "destination": "198.51.100.0",
        "metric": LARGE,
        "gateway": "10.0.2.9",
        "mask": "255.255.255.0",
        "irtt": 0,
        "flags": UP | GATEWAY,
        "refcnt": 0,
        "use": 0,
        "window": 4096,
        "mtu": 1400 + 40,  # the kernel makes it from the advertised segment size
        "version": 4,
    }


def length(mask: str) -> int:
    return sum(bin(int(byte)).count("1") for byte in mask.split("."))


@pytest.mark.usefixtures("routes")
def test_routes_of_ipv6(agent: AgentSocket) -> None:
    (route,) = (each for each in told(agent, 6) if each["destination"] == "2001:db8:1::")
    assert route.pop("use") >= 0
    assert route.pop("refcnt") >= 0
    assert route == {
        "iface": "eth0",
        "destination": "2001:db8:1::",
        "metric": LARGE,
        "desprefixlen": "48",
        "source": "::",
        "srcprefixlen": "0",
        "nexthop": "2001:db8::1",
        "flags": UP | GATEWAY,
        "version": 6,
    }


def test_load(guest: Guest, agent: AgentSocket) -> None:
    """The kernel updates them every five seconds, so ours must lie between two readings."""
    before = load = None
    after = by_the_kernel(guest)
    while before != after:
        before, load, after = after, agent.execute("guest-get-load"), by_the_kernel(guest)
    assert load is not None
    told = [load[member] for member in ("load1m", "load5m", "load15m")]
    assert told == pytest.approx(after, abs=0.011)  # the kernel cuts, and we do not


def by_the_kernel(guest: Guest) -> list[float]:
    return [float(figure) for figure in guest.run(["cat", "/proc/loadavg"]).stdout.split()[:3]]
