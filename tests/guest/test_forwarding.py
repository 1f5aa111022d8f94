"""ssh, ports and sockets of a guest that has no network card, through the agent."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from qga.client import ConnectError, DataPorts, GuestAgent, GuestSocket, GuestTunnel, Target

from .agent_socket import AgentSocket
from .data_port import MIB, state_of_port
from .forwarding import PORT, QGACTL, Ssh, services, without_network_card
from .service import UNIT, main_pid, open_files, wait_for
from .vm import DATA_PORTS, Guest

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

SOCKET = "/run/service.sock"


@pytest.fixture(scope="module")
def ssh(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    ssh = Ssh(guest, tmp_path_factory.mktemp("ssh"))
    with without_network_card(guest), services(guest, ssh.public):
        yield ssh


@pytest.fixture(autouse=True)
def left(guest: Guest, ssh: Ssh) -> Iterator[None]:
    """Nothing stays in the guest: no descriptor of the agent, no port in use."""
    before = len(open_files(guest, main_pid(guest)))
    yield
    wait_for(lambda: len(open_files(guest, main_pid(guest))) <= before, "all to be closed")
    with guest.connect() as agent:
        assert not any(state_of_port(agent, port)["busy"] for port in DATA_PORTS)


@pytest.fixture
def library(guest: Guest, ssh: Ssh) -> Iterator[GuestAgent]:
    with GuestAgent(f"unix:{guest.channel_path()}", 60) as agent:
        yield agent


def ports(guest: Guest) -> DataPorts:
    address = f"unix:{guest.channel_path()}"
    return DataPorts(address, {port.name: guest.channel_path(port) for port in DATA_PORTS})


@pytest.fixture
def tunnel(guest: Guest, library: GuestAgent) -> Iterator[GuestTunnel]:
    with library.tunnel(ports(guest)) as tunnel:
        assert tunnel.port
        library.close()  # the agent's channel is free for others
        yield tunnel


@contextmanager
def forwarded(guest: Guest, *forwards: str) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """`qgactl forward`, and where it listens."""
    argv = [*QGACTL, "--timeout", "60", "forward", "-c", f"unix:{guest.channel_path()}", *forwards]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe) as program:
        try:
            assert program.stdout
            lines = [program.stdout.readline().decode() for _ in forwards]
            yield program, [line.split()[0] for line in lines]
        finally:
            program.kill()


def to_port(shown: str) -> socket.socket:
    host, _, port = shown.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def read_all(connection: socket.socket) -> bytes:
    pieces = iter(lambda: connection.recv(MIB), b"")
    return b"".join(pieces)


def test_the_guest_has_no_network_card(guest: Guest, ssh: Ssh) -> None:
    assert guest.run(["ls", "/sys/class/net"]).stdout.split() == ["lo"]


def test_ssh_with_input_and_status(ssh: Ssh) -> None:
    script = "uname -n; cat; echo at the end; exit 7"
    shown = ssh.run("ssh", "web.qga", script, input=b"given\n", status=7)
    assert shown == b"guest\ngiven\nat the end\n"


def test_scp_sftp_and_rsync_there_and_back(guest: Guest, ssh: Ssh, tmp_path: Path) -> None:
    site = tmp_path / "site"
    guest.run(["rm", "-rf", "/run/site"])  # of a try before: scp would copy into it
    for name in ("a", "b/c", "b/d e"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(os.urandom(300_000))
    ssh.run("scp", "-r", str(site), "web.qga:/run/site")
    ssh.run("sftp", "web.qga:/run/site/b/c", str(tmp_path / "c"))
    assert (tmp_path / "c").read_bytes() == (site / "b/c").read_bytes()
    (site / "a").write_bytes(os.urandom(200_000))
    shown = ssh.run("rsync", "-ac", "--itemize-changes", f"{site}/", "web.qga:/run/site")
    assert [line.split()[1] for line in shown.splitlines() if line.startswith(b"<f")] == [b"a"]
    ssh.run("rsync", "-a", "web.qga:/run/site/", str(tmp_path / "back"))
    for name in ("a", "b/c", "b/d e"):
        assert (tmp_path / "back" / name).read_bytes() == (site / name).read_bytes()
    guest.run(["rm", "-r", "/run/site"])


def test_64_mib_both_ways(tunnel: GuestTunnel) -> None:
    block = random.Random(1).randbytes(MIB)
    with tunnel.connect(Target("127.0.0.1", PORT)) as connection:
        connection.sendall(b"sum 1".ljust(16))
        for _ in range(64):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).decode() == sha256(block * 64).hexdigest()
    with tunnel.connect(Target(path=SOCKET)) as connection:
        connection.sendall(b"pour 64".ljust(16))
        assert sha256(read_all(connection)).digest() == sha256(block * 64).digest()


def test_100_connections_at_once(guest: Guest) -> None:
    with forwarded(guest, f"0:{PORT}") as (_, (shown,)):
        connections = [to_port(shown) for _ in range(100)]
        for number, connection in enumerate(connections):
            connection.sendall(b"%d echo" % number)
        for number, connection in enumerate(connections):
            assert connection.recv(16) == b"%d" % number
        with guest.connect() as agent:  # QEMU serves one at a time: it was let in
            assert agent.execute("guest-ping") == {}
        for number, connection in enumerate(connections):
            connection.sendall(b"%d again" % number)
            connection.shutdown(socket.SHUT_WR)
        for number, connection in enumerate(connections):
            assert read_all(connection) == b"%d againend" % number
            connection.close()


def test_sockets_on_both_sides_and_an_end_by_a_signal(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "here.sock"
    with forwarded(guest, f"{path}:{SOCKET}", "0:127.0.0.1:1") as (program, (_, refused)):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"a word")
            assert connection.recv(9) == b"a"
        with to_port(refused) as connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=60)
        assert (program.returncode, err.decode()) == (
            130,
            "qgactl: 127.0.0.1:1: Connection refused\n",
        )
        assert not path.exists()


def test_a_service_that_resets_and_one_that_is_not_there(tunnel: GuestTunnel) -> None:
    with tunnel.connect(Target("127.0.0.1", PORT)) as connection:
        connection.sendall(b"reset 1".ljust(16))
        with pytest.raises(ConnectionResetError, match="Connection reset by peer"):
            read_all(connection)
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1:9: Connection refused"):
        tunnel.connect(Target("127.0.0.1", 9))


def test_without_a_data_port(guest: Guest, library: GuestAgent) -> None:
    none = DataPorts(library.address, {port.name: "" for port in DATA_PORTS})
    with library.tunnel(none) as tunnel:
        assert tunnel.port is None
        with tunnel.connect(Target("127.0.0.1", PORT)) as connection:
            connection.sendall(b"pour 4".ljust(16))
            assert read_all(connection) == random.Random(1).randbytes(MIB) * 4


def test_others_have_their_turn_without_a_data_port(guest: Guest, library: GuestAgent) -> None:
    """With a connection open, and without."""
    none = DataPorts(library.address, {port.name: "" for port in DATA_PORTS})
    with library.tunnel(none) as tunnel:
        for _ in range(3):
            with open_one(tunnel) as connection:
                with GuestAgent(library.address, 60) as another:
                    another.ping()
                connection.sendall(b"data")
                connection.shutdown(socket.SHUT_WR)
                assert read_all(connection) == b"dataend"
            with GuestAgent(library.address, 60) as another:
                another.ping()


def open_one(tunnel: GuestTunnel) -> GuestSocket:
    connection = tunnel.connect(Target("127.0.0.1", PORT))
    connection.sendall(b"hello echo")
    assert connection.recv(9) == b"hello"
    return connection


def test_an_agent_that_is_stopped_resets_what_is_open(guest: Guest, tunnel: GuestTunnel) -> None:
    with open_one(tunnel) as connection:
        guest.run(["systemctl", "restart", UNIT])
        with pytest.raises(ConnectionResetError, match="the agent is shutting down"):
            connection.recv(1)
    assert tunnel.closed


def test_a_host_that_leaves_resets_what_is_open(guest: Guest, agent: AgentSocket, ssh: Ssh) -> None:
    agent.close()
    with forwarded(guest, f"0:{PORT}") as (program, (shown,)), to_port(shown) as connection:
        connection.sendall(b"hello echo")
        assert connection.recv(9) == b"hello"
        program.kill()
        assert select.select([connection], [], [], 60)[0]
    established = ["/bin/sh", "-c", f"ss -Htn 'sport = {PORT}'"]
    wait_for(lambda: not guest.run(established).stdout, "the service's connection to be over")
