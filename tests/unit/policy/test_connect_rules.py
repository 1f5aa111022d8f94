"""[connect]: the address that is approved is the one that is connected to."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.errors import QgaError, Refused
from qga.policy.policy import Policy
from qga.settings.config import ChannelConfig

ANSWERS = {
    "web": ["10.0.0.1"],
    "both": ["192.0.2.7", "127.0.0.1"],
    "sixes": ["::ffff:127.0.0.1"],
    "any": ["0.0.0.0"],
    "any6": ["::"],
    "scoped": ["fe80::1%eth0"],
}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answers names as the table says; the names that were asked for."""
    names: list[str] = []

    def lookup(host: str, port: int, **_how: Any) -> list[Any]:
        names.append(host)
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = ANSWERS.get(host, [host])
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 2))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return names


def policy(*allow: str) -> Policy:
    return Policy(ChannelConfig(connect_allow=allow))


def reached(found: list[Any]) -> list[str]:
    return [each.place[0] for each in found]


def test_without_rules_everything_may_be_connected_to(asked: list[str]) -> None:
    assert reached(Policy().addresses("both", 80)) == ["192.0.2.7", "127.0.0.1"]
    assert asked == ["both"]


def test_only_the_addresses_that_are_allowed_are_returned(asked: list[str]) -> None:
    assert reached(policy("127.0.0.1:80").addresses("both", 80)) == ["127.0.0.1"]
    assert asked == ["both"]  # once: a second answer could be another one


@pytest.mark.parametrize(
    ("rule", "host", "address"),
    [
        ("127.0.0.1:80", "sixes", "::ffff:127.0.0.1"),
        ("[::ffff:127.0.0.1]:80", "sixes", "::ffff:127.0.0.1"),
        ("[::ffff:127.0.0.1]:80", "any", "127.0.0.1"),
        ("[::ffff:127.0.0.0/104]:80", "any", "127.0.0.1"),
        ("127.0.0.1:80", "any", "127.0.0.1"),
        ("[::1]:80", "any6", "::1"),
        ("[fe80::/10]:80", "scoped", "fe80::1%eth0"),
    ],
)
def test_other_ways_to_write_an_address_are_the_same_one(
    rule: str, host: str, address: str
) -> None:
    assert reached(policy(rule).addresses(host, 80)) == [address]
    with pytest.raises(Refused):
        policy("192.0.2.1:80").addresses(host, 80)


@pytest.mark.parametrize(
    ("host", "target"), [("::1", "[::1]:80"), ("10.0.0.1", "10.0.0.1:80"), ("web", "web:80")]
)
def test_a_refusal_names_the_target_as_a_rule_would(host: str, target: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"'{target}' is not in")):
        policy("192.0.2.1:80").addresses(host, 80)


def test_a_refusal_does_not_tell_whether_the_name_is_known() -> None:
    with pytest.raises(Refused) as known:
        policy("127.0.0.1:80").addresses("web", 80)
    with pytest.raises(Refused) as unknown:
        policy("127.0.0.1:80").addresses("nowhere", 80)
    assert str(known.value).replace("web", "nowhere") == str(unknown.value)
    assert known.value.detail == "its addresses: 10.0.0.1"
    assert "not known" in unknown.value.detail


@pytest.mark.parametrize("rules", [None, ("127.0.0.1:80",)])
def test_what_is_too_long_for_a_name_is_not_looked_up(
    rules: tuple[str, ...] | None, asked: list[str]
) -> None:
    """Python encodes it label by label, which nothing can stop."""
    error = QgaError if rules is None else Refused
    with pytest.raises(error):
        Policy(ChannelConfig(connect_allow=rules)).addresses("é." * 128, 80)
    assert not asked


def test_without_rules_an_unknown_name_is_an_error() -> None:
    with pytest.raises(QgaError, match="cannot look up 'nowhere': Name or service not known"):
        Policy().addresses("nowhere", 80)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        yield str(tmp_path / "s.sock")


def test_a_socket_by_its_real_path(service: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("s.sock")
    for rules in ((f"unix:{service}",), ("unix:/**",)):
        for path in (service, str(tmp_path / "link"), f"{tmp_path}/x/../s.sock"):
            fd = policy(*rules).socket(path)
            assert os.readlink(f"/proc/self/fd/{fd}") == service
            os.close(fd)


def test_a_link_at_an_allowed_path_does_not_lead_elsewhere(service: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("s.sock")
    with pytest.raises(Refused, match="is not in") as refusal:
        policy(f"unix:{tmp_path}/link").socket(str(tmp_path / "link"))
    assert service in refusal.value.detail


def test_a_refusal_does_not_tell_whether_the_socket_is_there(service: str, tmp_path: Path) -> None:
    texts = set()
    for name in ("s.sock", "none"):
        with pytest.raises(Refused) as refusal:
            policy("unix:/run/x").socket(str(tmp_path / name))
        texts.add(str(refusal.value).replace(name, ""))
    assert len(texts) == 1


def test_what_is_not_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for rules in (Policy(), policy("unix:/**")):
        with pytest.raises(OSError, match="not a socket"):
            rules.socket(str(tmp_path / "file"))
        with pytest.raises(FileNotFoundError):
            rules.socket(str(tmp_path / "none"))


def test_verdicts_open_nothing(service: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert policy("unix:/**").judge_socket(service).allowed
    assert not policy("127.0.0.1:1").judge_socket(service).allowed
    assert policy("10.0.0.0/8:80").judge_host("web", 80).allowed
    assert len(os.listdir("/proc/self/fd")) == before
