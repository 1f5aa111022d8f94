"""Data ports over vsock: who is let in, for how long, and what is given back. The loopback of IP
stands for vsock, which needs a guest: its addresses are the CIDs."""

from __future__ import annotations

import _socket
import os
import socket
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from qga import QgaError
from qga.loop import Loop

vsock_ports: Any = import_module("qga.commands._vsock_ports")

HOST = "127.0.0.1"


class Scene:
    """A port whose loop runs in a thread; `closed` counts how often it was given back."""

    def __init__(self, *cids: str) -> None:
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)
        listener.setblocking(False)
        self.closed = 0
        self.loop = Loop()
        self.port = vsock_ports.VsockPort(listener, cids, self._count)
        self.loop.post(lambda: self.port.watch(self.loop))
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def _count(self) -> None:
        self.closed += 1

    def dial(self, words: str | None = None) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self.port.number), 30)
        link.sendall((f"{self.port.token}\n" if words is None else words).encode())
        return link

    def is_closed(self) -> bool:
        deadline = time.monotonic() + 10
        while not self.closed and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.closed == 1

    def end(self) -> None:
        self.loop.post(self.port.close)
        self.loop.post(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene(HOST)
    yield made
    made.end()


def test_the_host_with_the_token_is_connected(scene: Scene) -> None:
    with scene.dial() as host:
        scene.port.wait_for_host(30)
        with scene.port.open() as file:
            host.sendall(b"to the guest")
            assert file.read(100) == b"to the guest"
            file.write(b"to the host")
            assert host.recv(100) == b"to the host"
            assert file.host_connected


def test_it_serves_one_command_after_the_other(scene: Scene) -> None:
    with scene.dial() as host:
        scene.port.wait_for_host(30)
        for _ in range(3):
            with scene.port.open() as file:
                with pytest.raises(QgaError, match="another command has it open"):
                    scene.port.open()
                file.write(b"x")
            assert host.recv(1) == b"x"
        assert scene.closed == 0


def test_nobody_else_can_connect_any_more(scene: Scene) -> None:
    with scene.dial():
        scene.port.wait_for_host(30)
        with pytest.raises(ConnectionRefusedError):
            scene.dial()


def test_a_host_that_leaves_is_read_to_the_end(scene: Scene) -> None:
    host = scene.dial()
    scene.port.wait_for_host(30)
    with scene.port.open() as file:
        host.sendall(b"last")
        host.close()
        assert scene.is_closed()
        assert file.read(100) == b"last"
        assert file.read(100) == b""
        assert not file.host_connected
    with pytest.raises(QgaError, match="the host is not connected"):
        scene.port.open()


@pytest.mark.parametrize("words", ["\n", "x" * 33, "0" * 32 + "\n", "é" * 16 + "\n"])
def test_a_wrong_token_is_disconnected_and_the_right_one_still_taken(
    scene: Scene, words: str
) -> None:
    with scene.dial(words) as stranger:
        assert hung_up(stranger)
    with scene.dial():
        scene.port.wait_for_host(30)
        scene.port.open().close()


def hung_up(link: socket.socket) -> bool:
    try:
        return link.recv(1) == b""
    except ConnectionResetError:
        return True


def test_another_cid_is_disconnected() -> None:
    scene = Scene("127.0.0.2")
    try:
        with scene.dial() as stranger:
            assert hung_up(stranger)
        with pytest.raises(QgaError, match="the host is not connected to the port 'vsock:"):
            scene.port.open()
    finally:
        scene.end()


def test_strangers_that_say_nothing_keep_nobody_out(scene: Scene) -> None:
    strangers = [scene.dial("") for _ in range(12)]
    with scene.dial():
        scene.port.wait_for_host(30)
        scene.port.open().close()
    for each in strangers:
        assert hung_up(each)
        each.close()


def test_a_host_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsock_ports, "PATIENCE", 0.1)
    scene = Scene(HOST)
    try:
        with scene.dial("half"), scene.dial(""):
            scene.port.wait_for_host(30)
            assert scene.is_closed()
    finally:
        scene.end()


def test_nothing_stays_open(scene: Scene) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with scene.dial():
        scene.port.wait_for_host(30)
        scene.port.open().close()
    assert scene.is_closed()
    assert len(os.listdir("/proc/self/fd")) == before - 1  # its listener


def test_a_channel_has_no_port_of_another_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vsock_ports._open, ("other", "vsock:1"), scene.port)
    assert vsock_ports.find("other", "vsock:1") is scene.port
    with pytest.raises(QgaError, match="no port 'vsock:1': open one with qga-open-vsock-port"):
        vsock_ports.find("main", "vsock:1")
