"""vsock against virtio-serial: one agent of one guest serves both, and takes turns."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from tests.bench.client import PATIENCE, Client, request
from tests.bench.guest import iter_received
from tests.bench.measures import MIB, PING, WARM_UP, read_throughput, write_throughput
from tests.guest.service import by_hand, stopped
from tests.guest.vm import DATA_PORTS, GuestError
from tests.guest.vsock import VsockGuest

PORT = 1234
CONFIG = f"[channel vsock]\nmethod=vsock-listen\npath=-1:{PORT}\n"
SCRATCH = "/dev/shm/by-{}"

Figures = dict[str, float]
"""What is measured, with its unit: its value."""


class Size(NamedTuple):
    rounds: int = 5
    pings: int = 500
    transferred: int = 16 * MIB


class Way(NamedTuple):
    """connect: to the agent. data_port: its name, and the host's end of it."""

    name: str
    connect: Callable[[], Client]
    data_port: Callable[[Client], tuple[str, socket.socket]]


def ways(guest: VsockGuest) -> list[Way]:
    def virtio_port(_client: Client) -> tuple[str, socket.socket]:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PATIENCE)
        link.connect(guest.channel_path(DATA_PORTS[0]))
        return DATA_PORTS[0].name, link

    def vsock_port(client: Client) -> tuple[str, socket.socket]:
        offer = client.call("qga-open-vsock-port")
        link = guest.dial(offer["port"], PATIENCE)
        link.sendall(f"{offer['token']}\n".encode())
        return offer["name"], link

    return [
        Way("virtio-serial", lambda: Client(guest.connect().socket), virtio_port),
        Way("vsock", lambda: Client(guest.dial_agent(PORT).socket), vsock_port),
    ]


@contextmanager
def serving_both(guest: VsockGuest) -> Iterator[None]:
    guest.write_file("/run/both.conf", CONFIG)
    with stopped(guest), by_hand(guest, "-c", "/run/both.conf"):
        guest.dial_agent(PORT).close()
        yield


def measure(guest: VsockGuest, size: Size) -> dict[str, Figures]:
    """The medians of each way, by its name."""
    rounds: dict[str, list[Figures]] = {}
    with serving_both(guest):
        for _ in range(size.rounds):
            for way in ways(guest):
                rounds.setdefault(way.name, []).append(speed(way, size))
    return {
        name: {key: median(each[key] for each in figures) for key in figures[0]}
        for name, figures in rounds.items()
    }


def speed(way: Way, size: Size) -> Figures:
    path = SCRATCH.format(way.name)
    repeat = max(1, size.transferred // MIB // 4)
    with way.connect() as client:
        client.time_exchanges(PING, WARM_UP)
        return {
            "ping, µs": median(client.time_exchanges(PING, size.pings)) / 1e3,
            "guest-file-write of 1 MiB, MB/s": write_throughput(client, path, MIB, repeat),
            "guest-file-read of 1 MiB, MB/s": read_throughput(client, path, MIB, repeat),
            **streams(way, client, path, size.transferred),
        }


def streams(way: Way, client: Client, path: str, count: int) -> Figures:
    """A data port is opened anew for each direction; that is part of the time."""
    data = os.urandom(count)
    begin = time.perf_counter()
    name, link = way.data_port(client)
    with link:
        client.send(request("qga-file-receive", path=path, port=name, count=count))
        link.sendall(data)
        client.receive()
    seconds_in = time.perf_counter() - begin
    begin = time.perf_counter()
    name, link = way.data_port(client)
    with link:
        client.send(request("qga-file-send", path=path, port=name))
        received = b"".join(iter_received(link, count))
        client.receive()
    seconds_out = time.perf_counter() - begin
    if received != data:
        raise GuestError(f"{way.name}: what was sent into the guest did not come back")
    return {
        "data port into the guest, MB/s": count / seconds_in / 1e6,
        "data port out of the guest, MB/s": count / seconds_out / 1e6,
    }


def table(figures: dict[str, Figures]) -> str:
    virtio, vsock = figures["virtio-serial"], figures["vsock"]
    rows = [
        f"| {key} | {virtio[key]:.4g} | {vsock[key]:.4g} | {vsock[key] / virtio[key]:.2f} |"
        for key in virtio
    ]
    return "\n".join(("| | virtio-serial | vsock | ratio |", "|---|--:|--:|--:|", *rows, ""))
