"""What `qgactl forward` and `proxy` take for places."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from qga.client.errors import ConnectError
from qga.client.tunnels import Target
from qga.ctl import display
from qga.ctl.forward import FAILURE_INTERVAL, MOST_FAILURES, Failures, Forwarder
from qga.ctl.forwards import (
    Forward,
    Listen,
    is_forward,
    is_local,
    may_be_forward,
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


@pytest.mark.parametrize("text", ["::1:8080:80", "8080:::1:80", "fe80::1%eth0:8080:80"])
def test_an_address_without_brackets(text: str) -> None:
    """Only a place for listening can be told from the name of a guest, which has no colon."""
    with pytest.raises(ValueError, match=r"write an IPv6 address in brackets, as in \[::1\]:80"):
        parse_forward(text)
    with pytest.raises(ValueError, match=r"write an IPv6 address in brackets, as in \[::1\]:22"):
        parse_target(text)
    assert may_be_forward(text)


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
    assert not may_be_forward(address)


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


@pytest.mark.parametrize("text", ["", "ssh", "a:b:c", "a:/b"])
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


def link_local() -> str:
    """An address that only has a meaning together with an interface."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, _, interface = line.split()
        if scope == "20":
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))}%{interface}"
    pytest.skip("this host has no link-local address")


def test_a_listener_on_a_link_local_address() -> None:
    """It can be reached by what is shown."""
    host = link_local()
    with open_listener(parse_forward(f"[{host}]:0:80").listen) as listener:
        port = listener.getsockname()[1]
        assert shown(listener) == f"[{host}]:{port}"
        assert not is_local(listener)
        socket.create_connection((host, port)).close()


@pytest.mark.parametrize(
    ("reasons", "lines"),
    [
        (["Connection refused"] * 1000, 1),
        (["Connection refused", "No route to host"] * 1000, 2),
        ([f"reset {number}" for number in range(1000)], MOST_FAILURES),
    ],
)
def test_a_client_that_tries_again_and_again(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    reasons: list[str],
    lines: int,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    failures = Failures()
    for _ in range(2):
        for reason in reasons:
            failures.report(Target("127.0.0.1", 80), reason, display.note)
        assert len(capsys.readouterr().err.splitlines()) == lines
        now += FAILURE_INTERVAL


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
