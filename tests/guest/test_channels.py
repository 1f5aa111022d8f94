"""The agent by the other doors of a guest: an ISA serial port, and vsock."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .agent_socket import AgentSocket
from .service import by_hand, stopped
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

VSOCK_PORT = 9999
VSOCK_ANY_CID = 0xFFFFFFFF
# Asks for a ping at CID 1 (this very guest) as soon as somebody listens there, and tells what came
# back: "" when the connection was ended without an answer.
VSOCK_CLIENT = f"""
import socket, time

deadline = time.monotonic() + 60
while True:
    host = socket.socket(socket.AF_VSOCK)
    host.settimeout(30)
    try:
        host.connect((1, {VSOCK_PORT}))
        break
    except ConnectionError:
        host.close()
        if time.monotonic() > deadline:
            raise
        time.sleep(0.1)
try:
    host.sendall(b'{{"execute": "guest-ping", "id": 5}}')
    print(host.recv(4096).decode(), end="")
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
    """What comes back as the `id` of a ping."""
    host.send(json.dumps({"execute": "guest-ping", "id": value}).encode())
    return json.loads(host.read_line())["id"]


@pytest.fixture
def vsock_loopback(guest: Guest) -> None:
    guest.run(["modprobe", "vsock_loopback"])


def ask_by_vsock(guest: Guest, *options: str) -> str:
    """Ping an agent that listens on vsock, from within the guest; the line it answers, or ""."""
    path = f"{VSOCK_ANY_CID}:{VSOCK_PORT}"
    with stopped(guest), by_hand(guest, "-m", "vsock-listen", "-p", path, *options):
        return guest.python(VSOCK_CLIENT, timeout=120)


@pytest.mark.usefixtures("vsock_loopback")
def test_vsock_lets_only_the_host_in(guest: Guest) -> None:
    assert ask_by_vsock(guest) == ""


@pytest.mark.usefixtures("vsock_loopback")
def test_vsock_lets_in_whom_the_configuration_names(guest: Guest) -> None:
    guest.write_file("/run/vsock.conf", "[general]\nallow-cids = 2,1\n")
    answer = ask_by_vsock(guest, "-c", "/run/vsock.conf")
    assert json.loads(answer) == {"return": {}, "id": 5}
