"""qga-tunnel and qga-connect: services of this machine through a real agent, frame by frame."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from qga.tunnels.frames import (
    CREDIT,
    DATA,
    ECHO,
    END,
    OPENED,
    RESET,
    WINDOW,
    Frame,
    FrameReader,
    credit_frame,
    frame,
)
from tests.integration.agent_process import (
    AgentProcess,
    Client,
    Refused,
    listening,
    refused,
    wait_for,
)
from tests.integration.data_ports import NAME, HostEnd, with_port

KEPT = 600 * 1024
"""Bytes: a window, what waits for the host, and a frame."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, HostEnd]]:
    with with_port(tmp_path_factory.mktemp("agent")) as (agent, host):
        yield agent, host


@pytest.fixture
def client(served: tuple[AgentProcess, HostEnd]) -> Iterator[Client]:
    with served[0].connect() as client:
        yield client


@pytest.fixture
def agent(served: tuple[AgentProcess, HostEnd]) -> AgentProcess:
    return served[0]


@pytest.fixture
def host(served: tuple[AgentProcess, HostEnd]) -> HostEnd:
    served[1].forget()
    return served[1]


@contextmanager
def service(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A service on the loopback interface; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    """Return what comes, and after its end a last word."""
    with connection, suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.sendall(b"bye")


class Tunnel:
    """A tunnel whose frames are brought and fetched in pieces."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.number = client.call("qga-tunnel")["tunnel"]
        self.reader = FrameReader()
        self.seen: list[Frame] = []

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(Refused):
            self.client.call("qga-tunnel-close", tunnel=self.number)

    def connect(self, credit: int = WINDOW, **target: Any) -> int:
        """Begin a connection, and let the agent report what becomes of it."""
        number = self.client.call("qga-connect", tunnel=self.number, **target)["connection"]
        self.exchange(credit_frame(number, CREDIT, credit))
        return int(number)

    def exchange(self, *frames: bytes) -> list[Frame]:
        """All frames so far."""
        text = base64.b64encode(b"".join(frames)).decode()
        reply = self.client.call("qga-tunnel-exchange", tunnel=self.number, buf_b64=text)
        self.seen += self.reader.feed(base64.b64decode(reply.get("data", "")))
        return self.seen

    def wait(self, number: int, kind: int) -> Frame:
        """The first frame of this kind."""
        return wait_for(
            lambda: next((f for f in self.exchange() if f[:2] == (number, kind)), None),
            f"a frame of the kind {kind}",
        )

    def data(self, number: int) -> bytes:
        return b"".join(f.data for f in self.seen if f[:2] == (number, DATA))

    def credit(self, number: int) -> int:
        """What the agent has granted."""
        return sum(f.credit for f in self.seen if f[:2] in ((number, OPENED), (number, CREDIT)))


@pytest.fixture
def tunnel(client: Client) -> Iterator[Tunnel]:
    with Tunnel(client) as tunnel:
        yield tunnel


def descriptors(agent: AgentProcess) -> int:
    return len(os.listdir(f"/proc/{agent.pid}/fd"))


def test_both_directions_and_their_ends(tunnel: Tunnel) -> None:
    with service(echo) as port:
        number = tunnel.connect(host="localhost", port=port)
        assert tunnel.wait(number, OPENED).credit == WINDOW
        tunnel.exchange(frame(number, DATA, b"hello"))
        wait_for(lambda: tunnel.exchange() and tunnel.data(number) == b"hello", "the echo")
        tunnel.exchange(frame(number, END))  # half: the last word still comes
        tunnel.wait(number, END)
    assert tunnel.data(number) == b"hellobye"


def test_nothing_is_said_before_the_host_knows_the_number(tunnel: Tunnel) -> None:
    with service(echo) as port:
        tunnel.client.call("qga-connect", tunnel=tunnel.number, host="127.0.0.1", port=port)
        time.sleep(0.2)
        assert tunnel.exchange() == []


def test_a_service_that_refuses(tunnel: Tunnel) -> None:
    number = tunnel.connect(host="127.0.0.1", port=1)
    assert tunnel.wait(number, RESET).reason == "Connection refused"


def test_a_service_that_does_not_answer(tunnel: Tunnel) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        held = [socket.socket() for _ in range(3)]
        for each in held:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        number = tunnel.connect(host="127.0.0.1", port=port, timeout=0.3)
        assert tunnel.wait(number, RESET).reason == "no answer within 0.3 s"
        for each in held:
            each.close()


def test_a_service_that_resets(tunnel: Tunnel) -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    with service(reset) as port:
        number = tunnel.connect(host="127.0.0.1", port=port)
        assert tunnel.wait(number, RESET).reason == "Connection reset by peer"


def test_a_reset_by_the_host_reaches_the_service(tunnel: Tunnel) -> None:
    ends: list[BaseException | bytes] = []

    def wait(connection: socket.socket) -> None:
        with connection:
            try:
                ends.append(connection.recv(1))
            except OSError as error:
                ends.append(error)

    with service(wait) as port:
        number = tunnel.connect(host="127.0.0.1", port=port)
        tunnel.wait(number, OPENED)
        tunnel.exchange(frame(number, RESET, b"enough"))
        wait_for(lambda: ends, "the end")
    assert isinstance(ends[0], ConnectionResetError)


def test_a_unix_socket(tunnel: Tunnel, tmp_path: Path) -> None:
    long = tmp_path / ("d" * 200)
    long.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "s"))
        (tmp_path / "s").rename(long / "s")  # its path is longer than an address may be
        listener.listen()
        number = tunnel.connect(path=str(long / "s"))
        tunnel.wait(number, OPENED)
        connection, _ = listener.accept()
        with connection:
            tunnel.exchange(frame(number, DATA, b"abc"))
            assert connection.recv(9) == b"abc"
    with refused(f"cannot connect to 'unix:{long}/s': Connection refused"):
        tunnel.connect(path=str(long / "s"))
    with refused(f"cannot connect to 'unix:{tmp_path}/none': No such file or directory"):
        tunnel.connect(path=f"{tmp_path}/none")


def test_a_service_that_reads_nothing_costs_a_window(tunnel: Tunnel) -> None:
    over = threading.Event()

    def read_nothing(connection: socket.socket) -> None:
        with connection:
            over.wait()

    with service(read_nothing) as port:
        number = tunnel.connect(host="127.0.0.1", port=port)
        tunnel.wait(number, OPENED)
        sent = 0
        while (room := tunnel.credit(number) - sent) > 0:
            tunnel.exchange(frame(number, DATA, bytes(min(room, 32000))))
            sent += min(room, 32000)
        assert sent < 16 * 1024 * 1024  # the kernel's buffers, and ours
        tunnel.exchange(frame(number, DATA, b"one more, without credit"))
    over.set()
    with pytest.raises(Refused, match="there is no tunnel"):
        tunnel.exchange()


def test_a_host_that_takes_nothing_holds_up_only_its_connection(tunnel: Tunnel) -> None:
    written = []

    def pour(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while True:
                written.append(connection.send(bytes(65536)))

    with service(pour) as port, service(echo) as other:
        number = tunnel.connect(credit=100_000, host="127.0.0.1", port=port)
        tunnel.wait(number, OPENED)
        wait_for(lambda: len(tunnel.exchange()) and len(tunnel.data(number)) == 100_000, "its data")
        second = tunnel.connect(host="127.0.0.1", port=other)
        tunnel.wait(second, OPENED)
        tunnel.exchange(frame(second, DATA, b"still here"))
        wait_for(lambda: tunnel.exchange() and tunnel.data(second) == b"still here", "an answer")
        assert len(tunnel.data(number)) == 100_000


def test_what_is_not_a_frame_ends_the_tunnel(tunnel: Tunnel) -> None:
    tunnel.exchange(b"\xff" * 8)
    with pytest.raises(Refused, match=f"there is no tunnel {tunnel.number}; it may have been"):
        tunnel.exchange()


def test_an_echo_is_returned(tunnel: Tunnel) -> None:
    assert tunnel.exchange(frame(0, ECHO, b"anybody?")) == [Frame(0, ECHO, b"anybody?")]


def test_tunnels_and_connections_have_a_limit(agent: AgentProcess, client: Client) -> None:
    before = descriptors(agent)
    tunnels = [Tunnel(client) for _ in range(16)]
    with refused("16 tunnels are open already; close one first"):
        Tunnel(client)
    with service(echo) as port:
        for _ in range(256):
            tunnels[0].connect(host="127.0.0.1", port=port)
        with refused("256 connections are open already; close one first"):
            tunnels[0].connect(host="127.0.0.1", port=port)
        for each in tunnels:
            each.__exit__()
        wait_for(lambda: descriptors(agent) <= before, "all to be given back")
        with Tunnel(client) as again:
            assert again.wait(again.connect(host="127.0.0.1", port=port), OPENED)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({}, "use either 'host' and 'port', or 'path'"),
        ({"host": "a"}, "use either 'host' and 'port', or 'path'"),
        ({"host": "a", "port": 1, "path": "/a"}, "use either 'host' and 'port', or 'path'"),
        ({"host": "a", "port": 0}, "Parameter 'port' is 0; use a number from 1 to 65535"),
        (
            {"host": "a", "port": 1, "timeout": 301},
            "Parameter 'timeout' is 301; use a number of seconds from 0 to 300",
        ),
        (
            {"host": "nosuch.invalid", "port": 1},
            "cannot look up 'nosuch.invalid': Name or service not known",
        ),
    ],
)
def test_what_is_asked_wrongly(tunnel: Tunnel, target: dict[str, Any], reason: str) -> None:
    with refused(reason):
        tunnel.connect(**target)


class OverPort:
    """A tunnel over the data port."""

    def __init__(self, client: Client, host: HostEnd) -> None:
        self.client, self.host = client, host
        self.number = client.call("qga-tunnel", port=NAME)["tunnel"]

    def connect(self, port: int) -> int:
        number = self.client.call("qga-connect", tunnel=self.number, host="127.0.0.1", port=port)[
            "connection"
        ]
        self.host.send(credit_frame(number, CREDIT, WINDOW))
        assert self.host.take(12) == credit_frame(number, OPENED, WINDOW)
        return int(number)


def test_over_a_data_port(client: Client, host: HostEnd) -> None:
    with service(echo) as port:
        tunnel = OverPort(client, host)
        number = tunnel.connect(port)
        for sent, expected in (
            (frame(number, DATA, b"raw \xff bytes"), frame(number, DATA, b"raw \xff bytes")),
            (frame(number, END), frame(number, DATA, b"bye") + frame(number, END)),
        ):
            host.send(sent)
            assert host.take(len(expected)) == expected
        with refused("the frames of this tunnel pass over its data port"):
            client.call("qga-tunnel-exchange", tunnel=tunnel.number)
        client.call("qga-tunnel-close", tunnel=tunnel.number)


def test_the_agent_says_when_it_stops(tmp_path: Path) -> None:
    with (
        with_port(tmp_path) as (agent, host),
        agent.connect() as client,
        service(echo) as port,
    ):
        OverPort(client, host).connect(port)
        agent.process.terminate()
        wanted = frame(0, RESET, b"the agent is shutting down")
        assert host.take(len(wanted)) == wanted


RULES = "[connect]\nallow=127.0.0.1:{port}; unix:{socket}\n"


def test_rules_say_where_to(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    with (
        service(echo) as port,
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as two,
    ):
        one.bind(str(allowed))
        one.listen()
        two.bind(str(other))
        two.listen()
        (tmp_path / "link").symlink_to(other)
        (tmp_path / "agent").mkdir()
        config = RULES.format(port=port, socket=allowed)
        with (
            listening(tmp_path / "agent", config=config) as agent,
            agent.connect() as client,
            Tunnel(client) as tunnel,
        ):
            assert tunnel.wait(tunnel.connect(host="127.0.0.1", port=port), OPENED)
            assert tunnel.wait(tunnel.connect(host="0.0.0.0", port=port), OPENED)
            assert tunnel.wait(tunnel.connect(path=str(allowed)), OPENED)
            for path in (other, tmp_path / "link"):
                with pytest.raises(Refused, match=f"'unix:{path}' is not in .connect. allow"):
                    tunnel.connect(path=str(path))
            with pytest.raises(Refused, match=r"'localhost:1' is not in .connect. allow of"):
                tunnel.connect(host="localhost", port=1)
            log = agent.log
    assert f'qga-connect {{"tunnel":{tunnel.number},"host":"127.0.0.1","port":{port}}}: done' in log
    assert f"its real path is '{other}'" in log


@pytest.mark.parametrize("profile", ["audit", "file-write"])
def test_a_lower_profile_has_none_of_it(tmp_path: Path, profile: str) -> None:
    config = f"[general]\nprofile={profile}\n[connect]\nallow=*:*\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        for command in ("qga-tunnel", "qga-connect"):
            with refused(f"Command {command} has been disabled: the command is not allowed"):
                client.call(command, tunnel=1)


def test_much_both_ways(tunnel: Tunnel) -> None:
    content, at = os.urandom(8 * 1024 * 1024), 0
    with service(echo) as port:
        number = tunnel.connect(host="127.0.0.1", port=port)
        tunnel.wait(number, OPENED)
        got = owed = 0
        digest = sha256()
        while got < len(content):
            room = min(tunnel.credit(number) - at, 32000, len(content) - at)
            piece, at = content[at : at + room], at + room
            frames = [frame(number, DATA, piece)] if piece else []
            if owed:
                frames.append(credit_frame(number, CREDIT, owed))
            known = len(tunnel.seen)
            tunnel.exchange(*frames)
            new = b"".join(f.data for f in tunnel.seen[known:] if f.kind == DATA)
            digest.update(new)
            owed = len(new)
            got += owed
    assert digest.digest() == sha256(content).digest()
