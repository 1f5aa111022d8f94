"""The ways for the bytes of a file between host and guest, in one guest and one run.

Each carries the same message, a file in memory at both ends: into the guest until it is confirmed
there, and back until it is here. What a way needs only once, such as a connection, is made before.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from qga.client import GuestAgent
from qga.client.copies.port_files import receive_file, send_file
from qga.client.data_ports import DataPort
from qga.client.ports import connect_port
from tests.bench import beside
from tests.bench.copying import check_same
from tests.guest.service import wait_for
from tests.guest.vm import AGENT_PORT, DATA_PORTS, ORIGINAL_PORT, Guest, GuestError, Port
from tests.guest.vsock import VsockGuest

KIB, MIB = 1 << 10, 1 << 20
SIZES = (4 * KIB, 64 * KIB, MIB, 16 * MIB)
THERE = "/dev/shm/message"
PATIENCE = 120.0
GUEST_ADDRESS = "10.0.2.15"  # see tests/guest/rootfs
HZ = os.sysconf("SC_CLK_TCK")


class Way(NamedTuple):
    """`put` brings a message into the guest, `get` one of that size back from there."""

    name: str
    put: Callable[[bytes], None]
    get: Callable[[int], bytes]


class Cost(NamedTuple):
    """Of one message: seconds until it is there, and of processors on both sides."""

    seconds: float
    host: float
    guest: float


class Passage(NamedTuple):
    """Messages of a size, one way, into the guest or out of it."""

    way: str
    into: bool
    size: int
    cost: Cost

    @property
    def speed(self) -> float:
        """Megabytes a second."""
        return self.size / self.cost.seconds / 1e6


def measure(guest: VsockGuest, progress: Callable[[str], None], repeat: int) -> list[Passage]:
    """All ways in turn, `repeat` times with each size."""
    samples: dict[tuple[str, bool, int], list[Cost]] = defaultdict(list)
    with ways(guest) as all_ways, GuestAgent(address(guest, ORIGINAL_PORT)) as watcher:
        for size in SIZES:
            for number in range(repeat):
                progress(f"in the guest: ways, {size} bytes, round {number + 1} of {repeat}")
                for way in all_ways:
                    for into, cost in zip((True, False), there_and_back(watcher, way, size)):
                        samples[way.name, into, size].append(cost)
    return [
        Passage(*what, Cost(*(median(column) for column in zip(*costs))))
        for what, costs in samples.items()
    ]


def there_and_back(watcher: GuestAgent, way: Way, size: int) -> tuple[Cost, Cost]:
    message, back = os.urandom(size), bytearray()
    put = cost_of(watcher, lambda: way.put(message))
    get = cost_of(watcher, lambda: back.extend(way.get(size)))
    check_same(message, bytes(back))
    return put, get


def cost_of(watcher: GuestAgent, act: Callable[[], None]) -> Cost:
    guest, host, begin = busy_time(watcher), our_time(), time.perf_counter()
    act()
    seconds, host = time.perf_counter() - begin, our_time() - host
    return Cost(seconds, host, busy_time(watcher) - guest)


def our_time() -> float:
    """Seconds that this process and those that it has waited for have run."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def busy_time(watcher: GuestAgent) -> float:
    """Seconds that the guest's processors were not idle."""
    fields = watcher.read_file("/proc/stat").split(b"\n", 1)[0].split()[1:]
    idle_and_waiting = slice(3, 5)  # proc_stat(5)
    return (sum(map(int, fields[:7])) - sum(map(int, fields[idle_and_waiting]))) / HZ


def address(guest: Guest, port: Port) -> str:
    return f"unix:{guest.channel_path(port)}"


@contextmanager
def ways(guest: VsockGuest) -> Iterator[list[Way]]:
    with ExitStack() as stack:
        agents = {
            name: stack.enter_context(GuestAgent(place, timeout=PATIENCE))
            for name, place in (
                ("QEMU's agent", address(guest, beside.NEWEST_PORT)),
                ("qga", address(guest, AGENT_PORT)),
                ("qga, SIMD", address(guest, beside.SIMD_PORT)),
                ("qga, vsock", guest.vsock_address(beside.VSOCK_PORT)),
            )
        }
        ours = agents["qga"]
        data_port = DataPort(DATA_PORTS[0].name, connect_port(guest.channel_path(DATA_PORTS[0])))
        stack.callback(data_port.close)
        raw = stack.enter_context(connected(guest.channel_path(DATA_PORTS[1])))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        yield [
            *(by_agent(f"guest-file-*, {name}", agent) for name, agent in agents.items()),
            by_data_port(ours, data_port),
            by_cat(ours, raw),
            by_scp(guest, folder),
        ]


@contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE)
        link.connect(path)
        yield link


def by_agent(name: str, agent: GuestAgent) -> Way:
    return Way(
        name,
        lambda message: agent.write_file(THERE, message),
        lambda size: agent.read_file(THERE, limit=size),
    )


def by_data_port(agent: GuestAgent, port: DataPort) -> Way:
    def put(message: bytes) -> None:
        agent.write_file(THERE, b"")
        receive_file(agent, port, THERE, 0, len(message), iter([message]), lambda: None)

    def get(size: int) -> bytes:
        return b"".join(send_file(agent, port, THERE, 0, size, lambda: None))

    return Way("data port", put, get)


def by_cat(agent: GuestAgent, link: socket.socket) -> Way:
    """A port that belongs to nobody: what reads and writes it is started by guest-exec."""
    port = f"/dev/virtio-ports/{DATA_PORTS[1].name}"

    def put(message: bytes) -> None:
        script = f"head -c {len(message)} <{port} >{THERE}"
        pid = agent.exec_start(["/bin/sh", "-c", script])
        link.sendall(message)
        agent.exec_wait(pid, timeout=PATIENCE)

    def get(size: int) -> bytes:
        pid = agent.exec_start(["/bin/sh", "-c", f"cat {THERE} >{port}"])
        message = bytearray()
        while len(message) < size:
            message += link.recv(MIB)
        agent.exec_wait(pid, timeout=PATIENCE)
        return bytes(message)

    return Way("raw port, cat", put, get)


def by_scp(guest: Guest, folder: Path) -> Way:
    """Over QEMU's user network, and a connection that is made once."""
    options = start_sshd(guest, folder)
    here = folder / "message"

    def put(message: bytes) -> None:
        here.write_bytes(message)
        run("scp", *options, str(here), f"root@127.0.0.1:{THERE}")

    def get(size: int) -> bytes:
        run("scp", *options, f"root@127.0.0.1:{THERE}", str(here))
        return here.read_bytes()

    return Way("scp, user network", put, get)


def start_sshd(guest: Guest, folder: Path) -> list[str]:
    """The options of ssh for a server in the guest."""
    key = folder / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    with guest.connect(ORIGINAL_PORT) as guest.original:
        guest.write_file("/root/.ssh/authorized_keys", key.with_suffix(".pub").read_text(), "600")
        guest.run(["/bin/sh", "-ec", "mkdir -p /run/sshd; ssh-keygen -A; chmod 700 /root/.ssh"])
        guest.run(["systemd-run", "--unit=bench-sshd.service", "/usr/sbin/sshd", "-D"])
    guest.original = None  # the port takes one connection
    number = free_port()
    forward = f"hostfwd_add net tcp:127.0.0.1:{number}-{GUEST_ADDRESS}:22"
    guest.qmp("human-monitor-command", command_line=forward)
    settings = {
        "Port": number,
        "IdentityFile": key,
        "UserKnownHostsFile": folder / "hosts",
        "StrictHostKeyChecking": "accept-new",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPath": folder / "control",
        "ControlPersist": "yes",
    }
    options = ["-F", "none", *(f"-o{name}={value}" for name, value in settings.items())]
    wait_for(lambda: is_served(options), "sshd in the guest")
    return options


def is_served(options: list[str]) -> bool:
    """Whether sshd answers; QEMU accepts connections before it does."""
    try:
        run("ssh", *options, "root@127.0.0.1", "true")
    except GuestError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def run(*argv: str) -> None:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise GuestError(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()}")
