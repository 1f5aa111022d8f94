"""The DHCP clients of a guest renew their leases: the real ones of Debian 12, and a real server.

They run in namespaces of their own, as do the servers of test_hooks_of_sid. Each client has its own
machine, which ends with the test: a client that lasts is not met by the next one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.service import wait_for
from tests.guest.vm import GuestError
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
printf 'debug\\nlogfile /client.log\\n' >>/etc/dhcpcd.conf
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
setsid NetworkManager --debug </dev/null >>/client.log 2>&1 &
for try in $(seq 50); do ! nmcli general >/dev/null 2>&1 || break; sleep 0.1; done
nmcli connection add type ethernet ifname eth7 con-name wire ipv4.method auto ipv6.method ignore
nmcli --wait 20 connection up wire
"""
DHCLIENT = """\
dhclient -4 -v -pf /run/dhclient.eth7.pid -lf /var/lib/dhcp/eth7.leases eth7 >>/client.log 2>&1
"""
CLIENTS = {
    "dhclient": (DHCLIENT, "eth7 (dhclient)"),
    "dhcpcd": ("dhcpcd --noarp eth7", "eth7 (dhcpcd)"),
    "dhcpcd for IPv4": ("dhcpcd -4 --noarp eth7", "eth7 (dhcpcd)"),
    # Without udev (--nodev) no interface would be ready here.
    "dhcpcd for all": ("dhcpcd --noarp --nodev", "all interfaces (dhcpcd)"),
    "NetworkManager": (NETWORK_MANAGER, "eth7 (NetworkManager)"),
}


@pytest.fixture(scope="module")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    single = tmp_path_factory.mktemp("code") / "qga.pyz"
    subprocess.run([str(CHECKOUT / "packaging/build-pyz"), str(single)], check=True)
    return single


@pytest.fixture
def machine(single_file: Path) -> Iterator[Root]:
    with root("clients", apart=True) as machine:
        machine.put(single_file, "/qga.pyz")
        machine.run(NETWORK)
        wait_for(lambda: "started" in machine.attempt("cat /dhcp.log").stdout, "the DHCP server")
        try:
            yield machine
        finally:  # pytest shows it if the test fails
            print(machine.attempt("ip address; tail -n +1 /log /dhcp.log /client.log").stdout)


def acknowledged(machine: Root) -> int:
    """How often the server has given or renewed a lease."""
    return machine.read("/dhcp.log").count("DHCPACK(server)")


def renews(machine: Root, name: str) -> bool:
    """Whether the client renews when it is asked to."""
    before = acknowledged(machine)
    assert machine.run(RENEW) == f"asked to renew: {name}\n"
    try:
        wait_for(lambda: acknowledged(machine) > before, "the renewal", 10)
    except GuestError:
        return False
    return True


@pytest.mark.parametrize("client", CLIENTS)
def test_a_lease_is_renewed(machine: Root, client: str) -> None:
    start, name = CLIENTS[client]
    machine.run(start)
    wait_for(lambda: acknowledged(machine) > 0, "the first lease")
    # dhcpcd 9.4.1 loses a signal that comes while its hooks run, as after the first lease.
    assert any(renews(machine, name) for _attempt in range(3))


def test_without_a_client(machine: Root) -> None:
    assert "no DHCP lease of systemd-networkd or NetworkManager" in machine.attempt(RENEW).stdout
