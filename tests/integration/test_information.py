"""Which system this is, and what time it is there."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga import __version__
from tests.differences import differs
from tests.integration.agent_process import AgentProcess, Client, listening

network: Any = import_module("qga.commands.network")
system: Any = import_module("qga.commands.system")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with listening(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


def test_guest_info(client: Client) -> None:
    info = client.call("guest-info")
    assert set(info) == {"version", "supported_commands"}
    assert [part.isdecimal() for part in info["version"].split(".")] == [True] * 3
    entries = {entry["name"]: entry for entry in info["supported_commands"]}
    assert len(entries) == len(info["supported_commands"])
    assert entries["guest-ping"] == {
        "name": "guest-ping",
        "enabled": True,
        "success-response": True,
    }
    assert {"guest-sync", "guest-sync-delimited", "guest-info", "guest-exec"} <= set(entries)


def test_the_release_and_its_python(client: Client) -> None:
    python = platform.python_version()
    assert client.call("qga-get-version") == {"version": __version__, "python": python}


def test_the_host_name(client: Client) -> None:
    assert client.call("guest-get-host-name") == {"host-name": os.uname().nodename}


@differs("long-host-name")
def test_a_host_name_as_long_as_can_be(tmp_path: Path) -> None:
    """In a separate UTS namespace. The original refuses 64 characters."""
    name = "x" * 64
    launcher = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    with listening(tmp_path, launcher=launcher) as agent, agent.connect() as client:
        assert client.call("guest-get-host-name") == {"host-name": name}
    assert os.uname().nodename != name


def test_the_kernel(client: Client) -> None:
    info = client.call("guest-get-osinfo")
    assert info["kernel-release"] == platform.release()
    assert info["kernel-version"] == platform.version()
    assert info["machine"] == platform.machine()


def test_the_distribution(client: Client) -> None:
    info = client.call("guest-get-osinfo")
    script = '. /etc/os-release; printf "%s\n" "$ID" "$NAME" "$VERSION_ID"'
    values = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    told = [info.get(member, "") for member in ("id", "name", "version-id")]
    assert told == values.splitlines()


class OsRelease:
    """The two places of os-release."""

    def __init__(self, folder: Path) -> None:
        self.etc, self.usr = folder / "etc", folder / "usr"

    def read(self) -> dict[str, str]:
        """The members that come from them."""
        info: dict[str, str] = system.System(None).guest_get_osinfo()
        assert info.pop("kernel-release") == platform.release()
        del info["kernel-version"], info["machine"]
        return info


@pytest.fixture
def os_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OsRelease:
    files = OsRelease(tmp_path)
    monkeypatch.setattr(system, "_OS_RELEASE", (str(files.etc), str(files.usr)))
    return files


def test_all_members_of_os_release(os_release: OsRelease) -> None:
    os_release.etc.write_text(
        "# a comment\n\nID=debian\nNAME='Debian GNU/Linux'\n  # another\n"
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION="12 (bookworm)"\nVERSION_ID="12"\n'
        "VARIANT=Server\nVARIANT_ID=server\nHOME_URL=https://www.debian.org/\n"
    )
    assert os_release.read() == {
        "id": "debian",
        "name": "Debian GNU/Linux",
        "pretty-name": "Debian GNU/Linux 12 (bookworm)",
        "version": "12 (bookworm)",
        "version-id": "12",
        "variant": "Server",
        "variant-id": "server",
    }


@differs("os-release-quotes", "os-release-faults")
@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("plain", "plain"),
        ("", ""),
        ('""', ""),
        ("''", ""),
        ("two words", "two words"),
        ('"two words"', "two words"),
        ("'two words'", "two words"),
        ('"a" b', "ab"),
        ("""'a'"b"c'd' # e""", "abc'd' # e"),
        (" plain", "plain"),
        ("\t plain \t", "plain"),
        (' "z" ', "z"),
        ("  ' z '  ", " z "),
        (r"a\ b\"c\\", 'a b"c\\'),
        ("a\\", "a"),
        ("a # no comment", "a # no comment"),
        ("a;b", "a;b"),
        ("a\nno value\n[section]", "a"),
        ("a\rb", "a\rb"),
        (r'"\"q\" \$HOME \`x\` \\"', '"q" $HOME `x` \\'),
        (r'"\n \t \x"', r"\n \t \x"),
        (r"'\$HOME \"'", r"\$HOME \""),
        ("'a\"b'", 'a"b'),
        ('"it\'s"', "it's"),
        ("a=b", "a=b"),
        ('"ä€😀"', "ä€😀"),
        ('"unfinished', "unfinished"),
        ("'unfinished", "unfinished"),
        ('"unfinished\\', "unfinished"),
        ('"', ""),
    ],
)
def test_values_of_os_release(os_release: OsRelease, value: str, name: str) -> None:
    os_release.etc.write_text(f"NAME={value}\n", encoding="utf-8")
    assert os_release.read() == {"name": name}


@pytest.mark.parametrize("key", ["NAME", " NAME", "NAME ", "\tNAME\t ", "ID=x\r\nNAME"])
def test_blanks_around_a_key_do_not_count(os_release: OsRelease, key: str) -> None:
    os_release.etc.write_bytes(f"{key}= good\n".encode())
    assert os_release.read()["name"] == "good"


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"no assignment",
            b"=x",
            b"=",
            b"==",
            b"   ",
            b"\t",
            b"\xff\xfe",
            b"X=\xff",
            b"\0",
            b"X=\0",
        ),
        *(b'X="not closed', b"X='not closed", b'X="a\\', b"X=\\", b"X", b"X==", b'"', b"'", b"\\"),
        *(b"export X=1", b"; X=1", b"# NAME=none", b"#", b"[section]", b"X=`id`", b"X=$(id)"),
        b"\xef\xbb\xbfX=1",
        b"X=" + 60_000 * b'""',
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_whatever_a_line_is_like_the_others_count(
    os_release: OsRelease, line: bytes, end: bytes
) -> None:
    os_release.etc.write_bytes(end.join([b"ID=debian", line, b'NAME="GNU"', b""]))
    assert os_release.read() == {"id": "debian", "name": "GNU"}


def test_the_last_of_two_equal_keys_counts(os_release: OsRelease) -> None:
    os_release.etc.write_text("ID=one\nID=two\n")
    assert os_release.read() == {"id": "two"}


def test_a_last_line_without_its_end_counts(os_release: OsRelease) -> None:
    os_release.etc.write_text("ID=one\nNAME=two")
    assert os_release.read() == {"id": "one", "name": "two"}


def test_a_value_that_is_not_utf8(os_release: OsRelease) -> None:
    os_release.etc.write_bytes(b"ID=etc\nNAME=a\xff\n")
    assert os_release.read() == {"id": "etc", "name": "a\ufffd"}


def test_the_second_file_stands_in_for_the_first(os_release: OsRelease) -> None:
    os_release.usr.write_text("ID=usr\n")
    assert os_release.read() == {"id": "usr"}


def test_the_first_file_counts_where_it_is_good(os_release: OsRelease) -> None:
    os_release.etc.write_text("ID=etc\n")
    os_release.usr.write_text("ID=usr\nNAME=usr\n")
    assert os_release.read() == {"id": "etc"}


def test_without_any_file_the_kernel_is_reported(os_release: OsRelease) -> None:
    assert os_release.read() == {}
    os_release.etc.mkdir()
    assert os_release.read() == {}
    os_release.usr.write_text("nonsense")
    assert os_release.read() == {}


def test_the_time(client: Client) -> None:
    before = time.time_ns() // 1000 * 1000
    now = client.call("guest-get-time")
    assert before <= now <= time.time_ns()
    assert now % 1000 == 0


@pytest.mark.parametrize(
    ("variable", "zone", "offset"),
    [
        ("UTC", "UTC", 0),
        ("Asia/Kolkata", "IST", 19800),
        ("XYZ+3:30", "XYZ", -12600),
        ("<+0545>-5:45", "+0545", 20700),
    ],
)
def test_the_time_zone(tmp_path: Path, variable: str, zone: str, offset: int) -> None:
    environment = {**os.environ, "TZ": variable}
    with listening(tmp_path, env=environment) as agent, agent.connect() as client:
        assert client.call("guest-get-timezone") == {"zone": zone, "offset": offset}


def test_a_time_zone_that_is_changed_is_noticed(tmp_path: Path) -> None:
    """As timedatectl, which replaces the link /etc/localtime; in a separate mount namespace."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    set_zone(etc / "localtime", "Asia/Kolkata")
    environment = {name: value for name, value in os.environ.items() if name != "TZ"}
    script = f'mount --bind {etc} /etc && exec "$@"'
    launcher = ["unshare", "--mount", "sh", "-c", script, "sh"]
    how = {"launcher": launcher, "env": environment}
    with listening(tmp_path, **how) as agent, agent.connect() as client:
        assert client.call("guest-get-timezone") == {"zone": "IST", "offset": 19800}
        set_zone(etc / "localtime", "Asia/Tokyo")
        assert client.call("guest-get-timezone") == {"zone": "JST", "offset": 32400}


def set_zone(link: Path, name: str) -> None:
    new = link.with_name("new")
    new.symlink_to(f"/usr/share/zoneinfo/{name}")
    new.replace(link)


def test_the_route_of_an_interface_whose_name_has_a_line_separator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel takes U+0085 and U+2028 in a name, and Python ends lines at them."""
    name = "a\x85b\u2028"
    table = f"Iface\n{name}\t0002000A\t0102000A\t0003\t0\t0\t100\t00FFFFFF\t0\t0\t0  \n"
    monkeypatch.setattr(network, "read_bytes", lambda path: table.encode())
    (route,) = network.Network(None).guest_network_get_route()
    assert (route["iface"], route["gateway"]) == (name, "10.0.2.1")
