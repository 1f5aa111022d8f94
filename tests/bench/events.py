"""How soon a host hears of an event in a guest, and what a watch costs while nothing happens.

The delay is that within the guest, by its own clock: from the change, which a program in the guest
makes and notes, to the event's time. The original agent has no events.
"""

from __future__ import annotations

import json
import socket
import time
from statistics import median

from tests.bench.client import PATIENCE, Client, request
from tests.bench.guest import data_port
from tests.guest import service
from tests.guest.addresses import ADDRESS_REQUESTS
from tests.guest.qmp import Lines
from tests.guest.vm import DATA_PORTS, Guest

Figures = dict[str, float]

CHANGES = 20
# Adds addresses, and notes in milliseconds when each was asked for.
CHANGE = (
    ADDRESS_REQUESTS
    + r"""
import time

for number in range(1, int(sys.argv[1]) + 1):
    time.sleep(0.2)
    print(time.time() * 1000)
    kernel.send(request(20, 0x405, number))  # RTM_NEWADDR; answered when it is done
    kernel.recv(4096)
    kernel.send(request(21, 0x5, number))  # RTM_DELADDR
    kernel.recv(4096)
"""
)


def measure(guest: Guest, idle_seconds: float) -> Figures:
    """Milliseconds from a new address to its event, and context switches a second while idle."""
    with guest.connect() as connection, data_port(guest) as link:
        client = Client(connection.socket)
        client.send(request("qga-watch", port=DATA_PORTS[0].name))
        client.receive()
        delays = watch_changes(guest, link)
        pid = service.main_pid(guest)
        service.switches_in(guest, pid, 0.5)  # what the changes still cause
        return {
            "from a new address to its event, ms": median(delays),
            f"the longest of {CHANGES}, ms": max(delays),
            "context switches while idle, with a watch, /s": (
                service.switches_in(guest, pid, idle_seconds) / idle_seconds
            ),
        }


def watch_changes(guest: Guest, link: socket.socket) -> list[float]:
    begun = guest.python(CHANGE, str(CHANGES)).split()
    lines, told = Lines(link), list[float]()
    deadline = time.monotonic() + PATIENCE
    while len(told) < CHANGES:
        event = json.loads(lines.next(deadline))
        if event["event"] == "address-added":
            told.append(event["time-ms"])
    return [end - float(start) for start, end in zip(begun, told)]


def table(figures: Figures) -> str:
    rows = [f"| {key} | {value:.4g} |" for key, value in figures.items()]
    return "\n".join(["| | |", "|---|--:|", *rows, ""])
