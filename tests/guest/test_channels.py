"""The agent on the other channels of a guest: an ISA serial port, and vsock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .agent_socket import AgentSocket
from .service import by_hand, stopped
from .vm import Guest
from .vsock import VsockGuest

pytestmark = pytest.mark.timeout(900)

PORT = 9999
MIB = 1 << 20
# Connects from within the guest, by the loopback, and tells what came of a ping.
LOCAL_CLIENT = f"""
import socket

with socket.socket(socket.AF_VSOCK) as client:
    client.settimeout(30)
    client.connect((1, {PORT}))
    try:
        client.sendall(b'{{"execute": "guest-ping"}}')
        print(client.recv(4096).decode(), end="")
    except ConnectionError:
        pass
"""


def test_isa_serial(guest: Guest) -> None:
    with stopped(guest), by_hand(guest, "--method=isa-serial", "--path=/dev/ttyS1"):
        with AgentSocket(guest.isa_serial_path, timeout=60) as host:
            host.sync_lossy()
            assert host.execute("guest-ping") == {}
            # Characters that a terminal would act upon, were it not raw.
            odd = "".join(map(chr, range(1, 32))) + "\x7f\xa0é€"
            assert echo_id(host, odd) == odd
        with AgentSocket(guest.isa_serial_path, timeout=60) as host:
            host.sync()
            assert host.execute("guest-ping") == {}


def echo_id(host: AgentSocket, value: str) -> Any:
    """The `id` in the reply to a ping."""
    host.send(json.dumps({"execute": "guest-ping", "id": value}).encode())
    return json.loads(host.read_line())["id"]


@contextmanager
def on_vsock(guest: VsockGuest, *options: str) -> Iterator[AgentSocket]:
    """An agent that listens on vsock, and a connection to it from the host."""
    options = ("-m", "vsock-listen", "-p", f"-1:{PORT}", *options)
    with stopped(guest), by_hand(guest, *options), guest.dial_agent(PORT) as host:
        yield host


def ask_locally(guest: VsockGuest) -> str:
    guest.run(["modprobe", "vsock_loopback"])
    return guest.python(LOCAL_CLIENT)


def test_vsock_serves_the_host(guest: VsockGuest) -> None:
    with on_vsock(guest) as host, guest.dial_agent(PORT) as another:
        assert host.execute("guest-get-host-name") == {"host-name": "guest"}
        text = "x" * MIB
        assert echo_id(another, text) == text


def test_vsock_admits_only_the_host(guest: VsockGuest) -> None:
    with on_vsock(guest) as host:
        assert ask_locally(guest) == ""
        assert host.execute("guest-ping") == {}


def test_vsock_admits_configured_cids(guest: VsockGuest) -> None:
    guest.write_file("/run/vsock.conf", "[general]\nallow-cids = 2,1\n")
    with on_vsock(guest, "-c", "/run/vsock.conf") as host:
        assert json.loads(ask_locally(guest)) == {"return": {}}
        assert host.execute("guest-ping") == {}
