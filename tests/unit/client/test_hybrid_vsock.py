"""Hybrid vsock: the handshake, and monitors that do not keep to it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from qga.client import AgentTimeout, ConnectError, GuestAgent
from qga.client.addresses import path_and_port
from qga.client.hybrid_vsock import LONGEST_ANSWER, connect_hybrid

Monitor = Callable[[socket.socket], None]


@pytest.mark.parametrize(
    "place", ["/run/x", "/run/x:", ":1234", "/run/x:-1", f"/run/x:{2**32}", "/run/x:1 "]
)
def test_an_address_is_a_path_and_a_number(place: str) -> None:
    with pytest.raises(ValueError, match="expected hvsock:PATH:PORT, such as"):
        path_and_port(place)


def test_a_path_may_have_colons() -> None:
    assert path_and_port("/run/a:b:1234") == ("/run/a:b", 1234)


@contextmanager
def served(folder: Path, monitor: Monitor) -> Iterator[str]:
    """The path of a monitor's socket; `monitor` has each client."""
    path = str(folder / "vsock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    monitor(client)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def saying(answer: bytes) -> Monitor:
    def monitor(client: socket.socket) -> None:
        assert client.recv(100) == b"CONNECT 1234\n"
        client.sendall(answer)
        client.recv(100)

    return monitor


def soon() -> float:
    return time.monotonic() + 30


def test_what_follows_the_answer_is_the_guests(tmp_path: Path) -> None:
    with (
        served(tmp_path, saying(b"OK 1073741824\nhello\nOK 2\n")) as path,
        connect_hybrid(path, 1234, soon()) as link,
    ):
        link.settimeout(30)
        assert link.recv(6, socket.MSG_WAITALL) == b"hello\n"


def test_nobody_listens_in_the_guest(tmp_path: Path) -> None:
    def monitor(client: socket.socket) -> None:
        client.recv(100)

    with (
        served(tmp_path, monitor) as path,
        pytest.raises(ConnectError, match="nothing listens on this port: start an agent"),
    ):
        connect_hybrid(path, 1234, soon())


def test_a_monitor_that_hangs_up_at_once(tmp_path: Path) -> None:
    with (
        served(tmp_path, lambda _client: None) as path,
        pytest.raises(ConnectError, match="nothing listens on this port"),
    ):
        connect_hybrid(path, 1234, soon())


@pytest.mark.parametrize(
    "answer",
    [
        b"no\n",
        b"OK\n",
        b"OK \n",
        b"OK one\n",
        b"OK -1\n",
        b"\n",
        b"OKAY 1\n",
        b'{"return": {}}\n',
        b"\x1b]0;x\x07\n",
        b"\xff" * 10 + b"\n",
        b"x" * 1_000_000,
        b"OK " + b"1" * 1_000_000,
    ],
)
def test_another_answer(tmp_path: Path, answer: bytes) -> None:
    with (
        served(tmp_path, saying(answer)) as path,
        pytest.raises(ConnectError, match="did not answer CONNECT with OK") as caught,
    ):
        connect_hybrid(path, 1234, soon())
    assert len(str(caught.value)) < len(path) + 250
    assert str(caught.value).isprintable()


def test_an_endless_line_is_given_up_after_a_few_bytes(tmp_path: Path) -> None:
    taken = []

    def monitor(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while True:
            taken.append(client.send(b"OK 1111111111111111"))

    with (
        served(tmp_path, monitor) as path,
        pytest.raises(ConnectError, match="did not answer CONNECT with OK"),
    ):
        connect_hybrid(path, 1234, soon())
    assert sum(taken) < 64 * 1024


def test_no_answer_is_a_timeout(tmp_path: Path) -> None:
    def monitor(client: socket.socket) -> None:
        while client.recv(100):
            pass

    with served(tmp_path, monitor) as path:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="did not answer CONNECT"):
            connect_hybrid(path, 1234, time.monotonic() + 0.2)
        assert time.monotonic() - started < 5


def test_slow_bytes_have_no_more_time(tmp_path: Path) -> None:
    def monitor(client: socket.socket) -> None:
        for byte in b"OK " + b"1" * LONGEST_ANSWER:
            client.sendall(bytes([byte]))
            time.sleep(0.1)

    with served(tmp_path, monitor) as path:
        started = time.monotonic()
        with pytest.raises(AgentTimeout):
            GuestAgent(f"hvsock:{path}:1234", 0.5).__enter__()
        assert time.monotonic() - started < 3


def test_a_missing_socket(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="No such file or directory: is the guest running, and"):
        connect_hybrid(str(tmp_path / "none"), 1234, soon())
