"""Half a request left on the port, as by Proxmox VE, and the request of the next client."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from . import service
from .agent_socket import AgentSocket, encode
from .vm import AGENT_PORT, Guest

pytestmark = pytest.mark.timeout(900)

REQUEST = (
    '{"arguments":{"path":"/bin/gr\u00fc\u00df","arg":["a",17],"capture-output":true},"execute":"x"}'
).encode()
# What the half ends with: in a keyword, after a comma, in a number, in a string, a brace short.
ENDS = [b"tru", b"17],", b'["a",', b"[", b"1", b"/bin/g", b"\xc3", b"capt", b'"execute":"x"', b"{"]
NUMBERS = itertools.count(1)


def connect(guest: Guest) -> AgentSocket:
    return AgentSocket(guest.channel_path(AGENT_PORT), timeout=20)


def leave_half(guest: Guest, end: bytes) -> None:
    half = REQUEST[: REQUEST.index(end) + len(end)]
    with connect(guest) as client:
        client.send(half)


def assert_answered(guest: Guest) -> None:
    """Send sync and command in one write, without 0xFF, and return both replies."""
    number = next(NUMBERS)
    with connect(guest) as client:
        sync = encode("guest-sync-delimited", {"id": number})
        client.send(sync + encode("guest-ping"))
        client.read_delimited(number, time.monotonic() + 20)
        assert json.loads(client.read_line()) == {"return": {}}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("pause", [0, 0.1, 1.5])
def test_the_next_client_is_answered(guest: Guest, end: bytes, pause: float) -> None:
    for _ in range(3):
        leave_half(guest, end)
        time.sleep(pause)
        assert_answered(guest)


def test_after_two_halves_in_a_row(guest: Guest) -> None:
    for first, second in itertools.product(ENDS[:6], ENDS[:6]):
        leave_half(guest, first)
        leave_half(guest, second)
        assert_answered(guest)


def test_half_of_a_big_one_is_forgotten(guest: Guest) -> None:
    pid = service.main_pid(guest)
    half = b'{"execute":"guest-file-write","arguments":{"handle":1,"buf-b64":"' + b"QUJD" * (
        1 << 22
    )
    with connect(guest) as client:
        client.socket.settimeout(120)
        client.socket.sendall(half)
        service.wait_for(lambda: resident(guest, pid) > 16 << 10, "the half to be read")
    service.wait_for(lambda: resident(guest, pid) < 34 << 10, "the half to be forgotten")
    assert_answered(guest)


def resident(guest: Guest, pid: int) -> int:
    """Resident memory of a process in KiB."""
    status = guest.run(["cat", f"/proc/{pid}/status"]).stdout
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_big_request_is_whole_however_soon_it_is_sent(guest: Guest) -> None:
    """The guest learns of the client, and that the one before has left, at the time of its request.

    With a fault here one in some forty replies was cut.
    """
    for number in range(300):
        request = {"execute": "guest-ping", "id": ["x" * 60_000, number]}
        with connect(guest) as client:
            client.send(json.dumps(request).encode() + b"\n")
            reply = json.loads(client.read_line())
            assert reply["return"] == {}
            assert reply["id"][1] == number
