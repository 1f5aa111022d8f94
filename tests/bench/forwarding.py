"""Connections to a service in a guest, by our agent and by ssh -L over QEMU's user network."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from qga.client import DataPorts, GuestAgent, Target
from tests.bench.measures import MIB, WARM_UP
from tests.bench.ways import GUEST_ADDRESS, free_port
from tests.guest.forwarding import PORT, Ssh, services
from tests.guest.service import wait_for
from tests.guest.vm import DATA_PORTS, Guest

Connect = Callable[[], socket.socket]
Figures = dict[str, float]

SEVERAL = 4
SCRATCH = "/dev/shm/forwarded"  # in the guest
ROUND_TRIP, INTO, OUT_OF, ALL_OUT_OF = (
    "round trip of a byte, µs",
    "into the guest, MB/s",
    "out of the guest, MB/s",
    f"out of the guest, {SEVERAL} connections at once, MB/s",
)
GOAL = 0.7
"""Of the data port's own throughput."""


def measure(guest: Guest, round_trips: int, count: int) -> dict[str, Figures]:
    """Figures of each way, with `count` MiB; the data port itself has no round trip."""
    with tempfile.TemporaryDirectory() as name:
        ssh = Ssh(guest, Path(name))
        with services(guest, ssh.public, "0.0.0.0"):
            with by_ssh(guest, ssh) as connect:
                found = {"ssh -L": of(connect, round_trips, count)}
            with GuestAgent(f"unix:{guest.channel_path()}", 60) as agent:
                found["data port"] = of_port(guest, agent, count)
                with agent.tunnel(ports(guest)) as tunnel:
                    found["qga-connect"] = of(
                        lambda: tunnel.connect(Target("127.0.0.1", PORT)), round_trips, count
                    )
    return found


def of(connect: Connect, round_trips: int, count: int) -> Figures:
    return {
        ROUND_TRIP: round_trip(connect, round_trips),
        INTO: throughput_in(connect, count),
        OUT_OF: throughput_out(connect, count, 1),
        ALL_OUT_OF: throughput_out(connect, count, SEVERAL),
    }


def round_trip(connect: Connect, count: int) -> float:
    with connect() as connection:
        if connection.family != socket.AF_UNIX:  # which has no such delay
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"x echo".ljust(16))
        connection.recv(1)
        times = []
        for _ in range(WARM_UP + count):
            begin = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            times.append(time.perf_counter() - begin)
    return median(times[WARM_UP:]) * 1e6


def throughput_in(connect: Connect, count: int) -> float:
    block = os.urandom(MIB)
    with connect() as connection:
        connection.sendall(b"sum 1".ljust(16))
        begin = time.perf_counter()
        for _ in range(count):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(64)
        return count * MIB / (time.perf_counter() - begin) / 1e6


def throughput_out(connect: Connect, count: int, connections: int) -> float:
    """Of so many connections at once."""
    each = max(1, count // connections)

    def take() -> None:
        with connect() as connection:
            connection.sendall(f"pour {each}".encode().ljust(16))
            rest = each * MIB
            while rest:
                rest -= len(connection.recv(MIB))

    threads = [threading.Thread(target=take) for _ in range(connections)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * connections * MIB / (time.perf_counter() - begin) / 1e6


def of_port(guest: Guest, agent: GuestAgent, count: int) -> Figures:
    """A file over the data port, without a connection in the guest."""
    port, data, found = DATA_PORTS[0], os.urandom(count * MIB), {}
    for key in (INTO, OUT_OF):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(guest.channel_path(port))
            mover = threading.Thread(target=move, args=(link, data, key == INTO))
            begin = time.perf_counter()
            mover.start()
            carry = agent.file_receive if key == INTO else agent.file_send
            carry(SCRATCH, port.name, 0, len(data))
            mover.join()
            found[key] = len(data) / (time.perf_counter() - begin) / 1e6
    return found


def move(link: socket.socket, data: bytes, send: bool) -> None:
    if send:
        link.sendall(data)
        return
    rest = len(data)
    while rest:
        rest -= len(link.recv(min(MIB, rest)))


def ports(guest: Guest) -> DataPorts:
    address = f"unix:{guest.channel_path()}"
    return DataPorts(address, {port.name: guest.channel_path(port) for port in DATA_PORTS})


@contextmanager
def by_ssh(guest: Guest, ssh: Ssh) -> Iterator[Connect]:
    """Connections through ssh -L to a port that QEMU forwards."""
    to_sshd, to_service = free_port(), free_port()
    rule = f"net tcp:127.0.0.1:{to_sshd}"
    guest.qmp("human-monitor-command", command_line=f"hostfwd_add {rule}-{GUEST_ADDRESS}:22")
    options = ["-i", str(ssh.key), "-p", str(to_sshd), "-o", "StrictHostKeyChecking=no"]
    options += ["-o", f"UserKnownHostsFile={ssh.folder}/known", "-o", "LogLevel=ERROR"]
    forward = f"{to_service}:127.0.0.1:{PORT}"
    argv = ["ssh", "-F", "none", *options, "-N", "-L", forward, "root@127.0.0.1"]
    with subprocess.Popen(argv) as program:
        try:
            wait_for(lambda: is_open(to_service), "ssh to forward a port")
            yield lambda: socket.create_connection(("127.0.0.1", to_service), 60)
        finally:
            program.terminate()
            guest.qmp("human-monitor-command", command_line=f"hostfwd_remove {rule}")


def is_open(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def table(found: dict[str, Figures]) -> str:
    ours, by_port, yardstick = found["qga-connect"], found["data port"], found["ssh -L"]
    lines = [
        "| | qga-connect | data port | ratio | ssh -L over the user network |",
        "|---|--:|--:|--:|--:|",
    ]
    for key, value in ours.items():
        alone = by_port.get(OUT_OF if key == ALL_OUT_OF else key)
        beside = ("-", "-") if alone is None else (f"{alone:.4g}", f"{value / alone:.2f}")
        lines.append(f"| {key} | {value:.4g} | {' | '.join(beside)} | {yardstick[key]:.4g} |")
    return "\n".join([*lines, ""])
