"""Rules of [connect]: addresses with ports, and sockets."""

from __future__ import annotations

import pytest

from qga.settings.connect_patterns import compile_target
from qga.settings.values import parse_targets


@pytest.mark.parametrize(
    ("rule", "address", "port", "allowed"),
    [
        ("127.0.0.1:22", "127.0.0.1", 22, True),
        ("127.0.0.1:22", "127.0.0.1", 23, False),
        ("127.0.0.1:22", "127.0.0.2", 22, False),
        ("127.0.0.1:*", "127.0.0.1", 65535, True),
        ("10.0.0.0/8:8000-8100", "10.255.0.1", 8100, True),
        ("10.0.0.0/8:8000-8100", "10.255.0.1", 8101, False),
        ("10.0.0.0/8:8000-8100", "11.0.0.1", 8000, False),
        ("[::1]:22", "::1", 22, True),
        ("[fe80::/10]:22", "fe80::1", 22, True),
        ("[::1]:22", "127.0.0.1", 22, False),
        ("*:443", "2001:db8::1", 443, True),
        ("*:443", "10.0.0.1", 442, False),
        ("unix:/run/docker.sock", "127.0.0.1", 22, False),
    ],
)
def test_addresses(rule: str, address: str, port: int, allowed: bool) -> None:
    assert compile_target(rule).allows_address(address, port) == allowed


def test_sockets() -> None:
    rule = compile_target("unix:/run/*.sock")
    assert rule.allows_socket("/run/docker.sock")
    assert not rule.allows_socket("/run/user/docker.sock")
    assert not compile_target("127.0.0.1:22").allows_socket("/run/docker.sock")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("localhost:22", "use an address, not a name"),
        ("127.0.0.1", "is not a valid target"),
        ("127.0.0.1:ssh", "is not a valid target"),
        ("127.0.0.1:0", "ports are numbers from 1 to 65535"),
        ("127.0.0.1:22-21", "ports are numbers"),
        ("127.0.0.1:70000", "ports are numbers"),
        ("127.0.0.1:*-9", "a range of ports has two numbers"),
        ("::1:22", "is not a valid target"),
        ("10.0.0.1/8:22", "has host bits set; use 10.0.0.0/8"),
        ("[fe80::1%eth0]:22", "a rule names no interface; use fe80::1"),
        ("127.0.0.1:22,127.0.0.1:23", "with ; between several"),
        ("unix:docker.sock", "must begin with /"),
        ("/run/docker.sock", "is not a valid target"),
        ("", "is not a valid target"),
    ],
)
def test_what_is_not_a_target(rule: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_target(rule)


def test_a_list_of_targets() -> None:
    assert parse_targets("127.0.0.1:22; unix:/run/docker.sock;") == (
        "127.0.0.1:22",
        "unix:/run/docker.sock",
    )
    with pytest.raises(ValueError, match="not a name"):
        parse_targets("127.0.0.1:22; web:80")
