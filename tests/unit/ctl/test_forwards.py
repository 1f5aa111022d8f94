"""What `qgactl forward` and `proxy` take for places."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from qga.client.errors import ConnectError
from qga.client.tunnels import Target
from qga.ctl.forward import Forwarder
from qga.ctl.forwards import (
    Forward,
    Listen,
    is_forward,
    is_local,
    open_listener,
    parse_forward,
    parse_target,
    shown,
)


@pytest.mark.parametrize(
    ("text", "listen", "target"),
    [
        ("8080:127.0.0.1:80", Listen(port=8080), Target("127.0.0.1", 80)),
        ("8080:80", Listen(port=8080), Target("127.0.0.1", 80)),
        ("0:db.internal:5432", Listen(port=0), Target("db.internal", 5432)),
        ("[::1]:8080:[fe80::1%eth0]:80", Listen("::1", 8080), Target("fe80::1%eth0", 80)),
        ("0.0.0.0:8080:web:80", Listen("0.0.0.0", 8080), Target("web", 80)),
        ("127.0.0.2:8080:80", Listen("127.0.0.2", 8080), Target("127.0.0.1", 80)),
        ("8080:/run/x.sock", Listen(port=8080), Target(path="/run/x.sock")),
        ("127.0.0.2:8080:/run/x.sock", Listen("127.0.0.2", 8080), Target(path="/run/x.sock")),
        ("/tmp/a:/run/b", Listen(path="/tmp/a"), Target(path="/run/b")),
        ("/tmp/a:80", Listen(path="/tmp/a"), Target("127.0.0.1", 80)),
        ("/tmp/a:localhost:80", Listen(path="/tmp/a"), Target("localhost", 80)),
        ("./a:80", Listen(path=f"{Path.cwd()}/a"), Target("127.0.0.1", 80)),
        ("8080:/run/a:b", Listen(port=8080), Target(path="/run/a:b")),
        ("unix:/tmp/a:unix:/run/b:80", Listen(path="/tmp/a"), Target(path="/run/b:80")),
        ("unix:./a:unix:80", Listen(path=f"{Path.cwd()}/a"), Target("unix", 80)),
    ],
)
def test_forwards(text: str, listen: Listen, target: Target) -> None:
    assert parse_forward(text) == Forward(listen, target)
    assert is_forward(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web",
        "8080",
        "8080:",
        ":80",
        "8080:web:http",
        "1:2:3:4:5",
        "8080::80",
        "70000:80",
        "8080:0",
    ],
)
def test_what_is_not_a_forward(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_forward(text)
    assert not is_forward(text)


@pytest.mark.parametrize(
    "address",
    [
        "vsock:3:1234",
        "hvsock:/run/web.vsock:1234",
        "unix:/run/web.sock",
        "libvirt:web",
        "libvirt:qemu:///system/web",
        "proxmox:100",
    ],
)
def test_the_address_of_a_guest_is_not_a_forward(address: str) -> None:
    assert not is_forward(address)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("22", Target("127.0.0.1", 22)),
        ("db:5432", Target("db", 5432)),
        ("[::1]:22", Target("::1", 22)),
        ("/run/docker.sock", Target(path="/run/docker.sock")),
        ("unix:/run/a:b", Target(path="/run/a:b")),
        ("unix:22", Target("unix", 22)),
    ],
)
def test_services(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "ssh", "a:b:c", "a:/b", "::1"])
def test_what_is_not_a_service(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (service; use 22|port)"):
        parse_target(text)


@pytest.mark.parametrize("text", ["127.0.0.1:22", "[::1]:22", "unix:/run/x", "unix:/a:b"])
def test_a_target_is_taken_as_it_is_shown(text: str) -> None:
    target = parse_target(text)
    assert str(target) == text
    assert parse_forward(f"0:{text}").target == target


def test_a_listener_on_a_free_port_is_for_this_host() -> None:
    with open_listener(Listen()) as listener:
        port = listener.getsockname()[1]
        assert shown(listener) == f"127.0.0.1:{port}"
        assert is_local(listener)
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_listener_with_a_path_is_for_this_user(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with open_listener(Listen(path=str(path))) as listener:
        assert path.stat().st_mode & 0o777 == 0o600
        assert is_local(listener)
        with pytest.raises(OSError, match="Address already in use"):
            open_listener(Listen(path=str(path)))


def test_a_socket_that_a_killed_qgactl_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    open_listener(Listen(path=str(path))).close()
    assert path.exists()
    with open_listener(Listen(path=str(path))), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_any_other_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="Address already in use"):
        open_listener(Listen(path=str(path)))
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(path))
        with pytest.raises(OSError, match="Address already in use"):
            open_listener(Listen(path=str(path)))


def test_a_connection_without_a_tunnel_is_reset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client would take end-of-file for a service that has nothing to say."""

    def fail(_forwarder: Forwarder) -> None:
        raise ConnectError("web", "the guest is gone")

    monkeypatch.setattr(Forwarder, "_open_tunnel", fail)
    nobody: Any = None
    with (
        open_listener(Listen()) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        Forwarder(nobody, nobody)._accept(listener, Target("127.0.0.1", 22))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert "127.0.0.1:22: the guest is gone" in capsys.readouterr().err
