"""Interfaces in a separate network namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.agent_process import listening

NETWORK = """
ip link set lo up
ip address add 10.0.0.1/20 label lo:1 dev lo
ip tuntap add mode tap name tap0
ip link set tap0 address 02:00:00:00:00:0a
ip address add 192.168.1.1/24 dev tap0
ip -6 address add fd01::1/64 dev tap0 nodad
ip tuntap add mode tun name tun0
ip address add 172.16.0.1 peer 172.16.0.2/32 dev tun0
ip -6 address add fd02::1 peer fd02::2/127 dev tun0
exec "$@"
"""


def test_interfaces(tmp_path: Path) -> None:
    launcher = ["unshare", "--net", "sh", "-ec", NETWORK, "sh"]
    with listening(tmp_path, launcher=launcher) as agent, agent.connect() as client:
        interfaces = client.call("guest-network-get-interfaces")
    counters = [interface.pop("statistics", None) for interface in interfaces]
    assert interfaces == [
        {
            "name": "lo",
            "hardware-address": "00:00:00:00:00:00",
            "ip-addresses": [ipv4("127.0.0.1", 8), ipv6("::1", 128)],
        },
        {
            "name": "tap0",
            "hardware-address": "02:00:00:00:00:0a",
            "ip-addresses": [ipv4("192.168.1.1", 24), ipv6("fd01::1", 64)],
        },
        {
            "name": "tun0",
            "hardware-address": "00:00:00:00:00:00",
            "ip-addresses": [ipv4("172.16.0.1", 32), ipv6("fd02::1", 127)],
        },
        {
            "name": "lo:1",
            "hardware-address": "00:00:00:00:00:00",
            "ip-addresses": [ipv4("10.0.0.1", 20)],
        },
    ]
    sent = {f"{way}-{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errs")}
    assert all(sent | {"rx-dropped", "tx-dropped"} == set(each) for each in counters[:3])
    assert counters[3] is None


def test_counters_are_those_of_the_kernel(tmp_path: Path) -> None:
    """As in the kernel's table, for the loopback interface after one ping."""
    script = 'ip link set lo up; ping -c 1 -q 127.0.0.1 >/dev/null 2>&1 || :; exec "$@"'
    launcher = ["unshare", "--net", "sh", "-c", script, "sh"]
    with listening(tmp_path, launcher=launcher) as agent, agent.connect() as client:
        table = Path(f"/proc/{agent.pid}/net/dev").read_text().splitlines()
        (loopback,) = client.call("guest-network-get-interfaces")
    figures = [int(field) for field in table[2].split()[1:]]
    received, sent = figures[:4], figures[8:12]
    names = ("bytes", "packets", "errs", "dropped")
    expected = {f"rx-{name}": figure for name, figure in zip(names, received)}
    expected |= {f"tx-{name}": figure for name, figure in zip(names, sent)}
    assert loopback["statistics"] == expected


def ipv4(address: str, prefix: int) -> dict[str, Any]:
    return {"ip-address": address, "ip-address-type": "ipv4", "prefix": prefix}


def ipv6(address: str, prefix: int) -> dict[str, Any]:
    return {"ip-address": address, "ip-address-type": "ipv6", "prefix": prefix}
