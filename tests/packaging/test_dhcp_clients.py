"""The DHCP clients of a guest renew their leases: the real ones of Debian 12, and a real server.

They run in namespaces of their own, as do the servers of test_hooks_of_sid.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.service import wait_for
from tests.packaging.built import CHECKOUT
from tests.packaging.debian import Root, root

pytestmark = pytest.mark.timeout(400)  # the first test may have to build the root

# The server is in a network of its own: what a client sends to an address of its own network never
# reaches a wire. A lease is renewed by itself after half of its time, which is long.
NETWORK = """\
ip netns add server
ip link add eth7 type veth peer name server netns server
ip -n server address add 10.9.0.1/24 dev server
ip -n server link set server up
ip link set eth7 up
setsid ip netns exec server dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 \
    --interface=server --bind-interfaces --no-ping --user=root --leasefile-ro \
    --dhcp-range=10.9.0.10,10.9.0.99,2h --dhcp-authoritative --log-facility=/dhcp.log \
    --pid-file=/run/dnsmasq.pid </dev/null >/log 2>&1 &
"""
RENEW = "PYTHONPATH=/qga.pyz python3 -c 'from qga.commands import _leases; print(_leases.renew())'"

NETWORK_MANAGER = """\
mkdir -p /run/dbus
mount -t sysfs -o ro sysfs /sys
dbus-daemon --system --fork
cat >/etc/NetworkManager/NetworkManager.conf <<END
[main]
plugins=keyfile
auth-polkit=false
END
NetworkManager >/log 2>&1
for try in $(seq 50); do ! nmcli general >/dev/null 2>&1 || break; sleep 0.1; done
nmcli connection add type ethernet ifname eth7 con-name wire ipv4.method auto ipv6.method ignore
nmcli --wait 20 connection up wire
"""
CLIENTS = {
    "dhclient": (
        "dhclient -4 -pf /run/dhclient.eth7.pid -lf /var/lib/dhcp/eth7.leases eth7",
        "kill $(cat /run/dhclient.eth7.pid)",
        "eth7 (dhclient)",
    ),
    "dhcpcd": ("dhcpcd --noarp eth7", "dhcpcd --exit eth7", "eth7 (dhcpcd)"),
    "dhcpcd for IPv4": ("dhcpcd -4 --noarp eth7", "dhcpcd -4 --exit eth7", "eth7 (dhcpcd)"),
    # Without udev (--nodev) no interface would be ready here.
    "dhcpcd for all": ("dhcpcd --noarp --nodev", "dhcpcd --exit", "all interfaces (dhcpcd)"),
    "NetworkManager": (
        NETWORK_MANAGER,
        "kill $(cat /run/NetworkManager/NetworkManager.pid); rm -r /run/NetworkManager",
        "eth7 (NetworkManager)",
    ),
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    single = tmp_path_factory.mktemp("code") / "qga.pyz"
    subprocess.run([str(CHECKOUT / "packaging/build-pyz"), str(single)], check=True)
    with root("clients", apart=True) as machine:
        machine.put(Path(single), "/qga.pyz")
        machine.run(NETWORK)
        wait_for(lambda: "started" in machine.attempt("cat /dhcp.log").stdout, "the DHCP server")
        yield machine


def acknowledged(machine: Root) -> int:
    """How often the server has given or renewed a lease."""
    return machine.read("/dhcp.log").count("DHCPACK(server)")


def processes(machine: Root) -> list[str]:
    """The clients that run."""
    names = machine.run("cat /proc/[0-9]*/comm 2>/dev/null || true").split()
    return [name for name in names if name in ("dhclient", "dhcpcd", "NetworkManager")]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_lease_is_renewed(machine: Root, client: str) -> None:
    start, end, name = CLIENTS[client]
    before = acknowledged(machine)
    machine.run(start)
    try:
        wait_for(lambda: acknowledged(machine) > before, "the first lease")
        before = acknowledged(machine)
        assert machine.run(RENEW) == f"asked to renew: {name}\n"
        wait_for(lambda: acknowledged(machine) > before, "the renewal", 20)
    finally:
        machine.run(end)
        wait_for(lambda: not processes(machine), "the client to end")


def test_without_a_client(machine: Root) -> None:
    assert "no DHCP lease of systemd-networkd or NetworkManager" in machine.attempt(RENEW).stdout
