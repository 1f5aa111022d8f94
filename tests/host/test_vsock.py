"""vsock from the client's end, within the guest: there its loopback stands for the way to it."""

from __future__ import annotations

import pytest

from tests.guest.service import by_hand, stopped
from tests.guest.vm import Guest

pytestmark = pytest.mark.timeout(900)

# Connects anew until the agent listens, and tells each error and the reply.
CLIENT = """
import sys, time
sys.path.insert(0, "/opt/qga")
from qga.client import ConnectError, GuestAgent

deadline = time.monotonic() + 60
while True:
    try:
        with GuestAgent(sys.argv[1], 30) as agent:
            print(agent.hostname())
            break
    except ConnectError as error:
        print(error)
        if len(sys.argv) > 2 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
"""


@pytest.fixture
def loopback(guest: Guest) -> None:
    guest.run(["modprobe", "vsock_loopback"])


@pytest.mark.usefixtures("loopback")
def test_an_agent_on_vsock(guest: Guest) -> None:
    guest.write_file("/run/vsock-client.conf", "[general]\nallow-cids = 1\n")
    options = ["-m", "vsock-listen", "-p", "1:9998", "-c", "/run/vsock-client.conf"]
    with stopped(guest), by_hand(guest, *options):
        assert guest.python(CLIENT, "vsock:1:9998").splitlines()[-1] == "guest"


@pytest.mark.usefixtures("loopback")
def test_nobody_listens_on_vsock(guest: Guest) -> None:
    complaint = guest.python(CLIENT, "vsock:1:9997", "once")
    assert complaint == (
        "vsock:1:9997: Connection reset by peer: no agent listens there: "
        "start one in the guest with --method vsock-listen\n"
    )
