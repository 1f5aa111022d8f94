"""Measurements inside a guest over virtio ports: ours on libvirt's, each other agent on its own.

Each agent is observed through another one, so that observing does not wake it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.bench import beside, copying, ways
from tests.bench.client import PATIENCE, Client, request
from tests.bench.measures import (
    MIB,
    PING,
    WARM_UP,
    Figures,
    Size,
    information_commands,
    median_time,
    ping_figures,
    read_throughput,
    write_throughput,
)
from tests.bench.table import Samples
from tests.guest import service
from tests.guest.agent_socket import AgentSocket
from tests.guest.machines import MEASURED
from tests.guest.vm import AGENT_PORT, DATA_PORTS, ORIGINAL_PORT, Guest, GuestError, Port
from tests.guest.vsock import VsockGuest

SCRATCH = "/dev/shm/transfer"


class Place(NamedTuple):
    """How to reach an agent in the guest."""

    name: str
    port: Port
    unit: str


PLACES = (
    Place("original", beside.NEWEST_PORT, beside.NEWEST_UNIT),
    Place("older", ORIGINAL_PORT, "qemu-ga-original.service"),
    Place("ours", AGENT_PORT, service.UNIT),
)
ORIGINALS = ("original", "older")
SIMD = Place("simd", beside.SIMD_PORT, beside.SIMD_UNIT)


class Outcome(NamedTuple):
    """The information commands that all agents answer in the guest, and the ways for files."""

    commands: tuple[str, ...]
    passages: list[ways.Passage]


def measure(samples: Samples, size: Size, progress: Callable[[str], None]) -> Outcome:
    """Boot a guest and add its measurements to `samples`."""
    with VsockGuest(hardware=beside.hardware, machine=MEASURED) as guest:
        beside.start(guest)
        if guest.original is not None:  # each connection is made here, and one at a time
            guest.original.close()
            guest.original = None
        commands = common_commands(guest)
        for number in range(size.rounds):
            progress(f"in the guest, round {number + 1} of {size.rounds}")
            present = [place for place in PLACES if place.name != "older" or not number % 2]
            for place in (*present, SIMD):
                samples.add(place.name, speed(guest, place, size))
            for command in commands * size.turns:
                for place in present:
                    samples.add(place.name, time_command(guest, place, command, size))
            for place in present:
                samples.add(place.name, idling(guest, place, size))
        progress("in the guest: copies")
        for place in (PLACES[0], *PLACES[2:], SIMD):
            is_original = place.name in ORIGINALS
            samples.add(
                place.name, copying.figures(guest, place.port, size, by_ansible=is_original)
            )
        return Outcome(commands, ways.measure(guest, progress, size.passages))


def speed(guest: Guest, place: Place, size: Size) -> Figures:
    with connect(guest, place) as connection:
        client = Client(connection.socket)
        client.time_exchanges(PING, WARM_UP)
        times = ping_figures(client.time_exchanges(PING, size.pings // 4))
        repeat = max(1, size.transferred // MIB // 8)
        figures = {
            **{f"guest {key}": value for key, value in times.items()},
            "guest write": write_throughput(client, SCRATCH, MIB, repeat),
            "guest read": read_throughput(client, SCRATCH, MIB, repeat),
        }
        return {**figures, **copies(guest, place, client, figures, size.transferred // 2)}


def copies(guest: Guest, place: Place, client: Client, figures: Figures, count: int) -> Figures:
    """Megabytes a second over a data port; of the original, which cannot, over its commands."""
    if place.name in ORIGINALS:
        return {"guest copy in": figures["guest write"], "guest copy out": figures["guest read"]}
    data, on_port = os.urandom(count), {"path": SCRATCH, "port": DATA_PORTS[0].name}
    with data_port(guest) as link:
        begin = time.perf_counter()
        client.send(request("qga-file-receive", **on_port, count=count))
        link.sendall(data)
        client.receive()
        seconds_in = time.perf_counter() - begin
    with data_port(guest) as link:
        begin = time.perf_counter()
        client.send(request("qga-file-send", **on_port))
        received = b"".join(iter_received(link, count))
        client.receive()
        seconds_out = time.perf_counter() - begin
    if received != data:
        raise GuestError("what was copied into the guest did not come back from there")
    return {
        "guest copy in": count / seconds_in / 1e6,
        "guest copy out": count / seconds_out / 1e6,
    }


@contextmanager
def data_port(guest: Guest) -> Iterator[socket.socket]:
    """The host's end of a data port."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE)
        link.connect(guest.channel_path(DATA_PORTS[0]))
        yield link


def iter_received(link: socket.socket, count: int) -> Iterator[bytes]:
    """Read exactly this many bytes."""
    while count:
        piece = link.recv(min(MIB, count))
        if not piece:
            raise GuestError("the data port was closed")
        count -= len(piece)
        yield piece


def common_commands(guest: Guest) -> tuple[str, ...]:
    sets = []
    for place in PLACES:
        with connect(guest, place) as connection:
            sets.append(set(information_commands(Client(connection.socket))))
    return tuple(sorted(set.intersection(*sets)))


def time_command(guest: Guest, place: Place, command: str, size: Size) -> Figures:
    with connect(guest, place) as connection:
        client = Client(connection.socket)
        client.time_exchanges(request(command), WARM_UP)
        return {f"guest call {command}": median_time(client, command, size.calls // 4)}


def idling(guest: Guest, place: Place, size: Size) -> Figures:
    """Context switches a second, of a process that nobody talks to."""
    other = PLACES[PLACES.index(place) - 1]
    with through(guest, other):
        pid = service.main_pid(guest, place.unit)
        with connect(guest, place):
            connected = switches(guest, pid, size)
        alone = switches(guest, pid, size)
    return {"guest idle connected": connected, "guest idle alone": alone}


def switches(guest: Guest, pid: int, size: Size) -> float:
    service.switches_in(guest, pid, 0.5)  # what the change before still causes
    return service.switches_in(guest, pid, size.idle_seconds) / size.idle_seconds


def connect(guest: Guest, place: Place) -> AgentSocket:
    """A connection to an agent. Raises GuestError when it does not answer."""
    try:
        return guest.connect(place.port)
    except (TimeoutError, ConnectionError) as error:
        raise GuestError(f"{place.name} does not answer in the guest: {error}") from error


@contextmanager
def through(guest: Guest, place: Place) -> Iterator[None]:
    """Run programs in the guest through this agent."""
    with connect(guest, place) as connection:
        guest.original = connection
        try:
            yield
        finally:
            guest.original = None
