"""Which words of a command line name the guest; what the others are then."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from qga.ctl import guest_words
from qga.ctl.address_book import Book
from qga.ctl.cli import app
from qga.ctl.guest_words import Line, Surroundings, WrongWords, split
from qga.ctl.usage import command_of

GROUP = command_of(app)
KNOWN = Book("", {"web": "unix:/web.sock", "sync": "unix:/sync.sock"})


class Parent:
    """As much of a context as a command asks for its shared options."""

    command = GROUP
    parent = None


class Context(Parent):
    parent: Any = Parent
    help_option_names = ("-h", "--help")
    _help_option = None


def read(text: str, has_guest: bool) -> tuple[str, list[str], str]:
    """The guest, the words that are left, and the other reading."""
    name, *args = shlex.split(text)
    command = GROUP.commands[name]
    options = [*command.params, *command.shared(Context)]
    line = Line(name, args, options)
    surroundings = Surroundings(lambda: has_guest, lambda: KNOWN)
    found = command.place.find(line, surroundings)
    return found.guest, line.args, found.doubt


@pytest.fixture(autouse=True)
def no_guests_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_words, "find_guests", list)


@pytest.mark.parametrize("has_guest", [True, False])
@pytest.mark.parametrize(
    ("text", "guest", "rest"),
    [
        ("ping web", "web", []),
        ("ping --count 3 web", "web", ["--count", "3"]),
        ("ping web --count 3", "web", ["--count", "3"]),
        ("ping --timeout 3 -v web", "web", ["--timeout", "3", "-v"]),
        ("ping -- web", "web", ["--"]),
        ("ping", "", []),
        ("fs web db", "web", ["db"]),
        ("ping /run/x.sock", "/run/x.sock", []),
        ("passwd root", "", ["root"]),
        ("passwd web root --stdin", "web", ["root", "--stdin"]),
        ("ssh-keys list root", "", ["list", "root"]),
        ("ssh-keys web list root", "web", ["list", "root"]),
        ("ssh-keys add root - --reset", "", ["add", "root", "-", "--reset"]),
        ("suspend", "", []),
        ("suspend disk", "", ["disk"]),
        ("suspend web", "web", []),
        ("suspend web disk", "web", ["disk"]),
        ("time", "", []),
        ("time web", "web", []),
        ("time --set rtc", "", ["--set", "rtc"]),
        ("time web --set rtc", "web", ["--set", "rtc"]),
        ("time --set @12", "", ["--set", "@12"]),
        ("time --set web", "web", ["--set"]),
        ("call guest-ping", "", ["guest-ping"]),
        ("call acme", "", ["acme"]),
        ("call web acme", "web", ["acme"]),
        ("call web guest-ping", "web", ["guest-ping"]),
        ("call guest-1 guest-ping", "guest-1", ["guest-ping"]),
        ("call guest-x path", "", ["guest-x", "path"]),
        ("call guest-x a=1 b", "", ["guest-x", "a=1", "b"]),
        ("call guest-x '{\"a\": 1}'", "", ["guest-x", '{"a": 1}']),
        ("call web guest-x '{\"a\": 1}'", "web", ["guest-x", '{"a": 1}']),
        ("vcpus web --online 1-2", "web", ["--online", "1-2"]),
        ("list", "", []),
        ("top web db", "", ["web", "db"]),
        ("cp web:/etc/hosts .", "web", [":/etc/hosts", "."]),
        ("cp web:/etc/hosts web", "web", [":/etc/hosts", "web"]),
        ("cp guest:/etc/hosts .", "", [":/etc/hosts", "."]),
        ("cp -r a b web:/x", "web", ["-r", "a", "b", ":/x"]),
        ("cp :/etc/hosts .", "", [":/etc/hosts", "."]),
        ("cp ./a:b web:/x", "web", ["./a:b", ":/x"]),
        ("cp unix:/s.sock:/etc/a .", "unix:/s.sock", [":/etc/a", "."]),
        ("cat web:/a web:/b", "web", ["/a", "/b"]),
        ("cat /a", "", ["/a"]),
        ("exec web -- uname -a", "web", ["--", "uname", "-a"]),
        ("exec web -u me -- id", "web", ["-u", "me", "--", "id"]),
        ("exec -u me web -- id", "web", ["-u", "me", "--", "id"]),
        ("exec -- uname -a", "", ["--", "uname", "-a"]),
        ("exec uname -a", "", ["uname", "-a"]),
        ("exec uname", "", ["uname"]),
        ("exec -c web uname -a", "", ["-c", "web", "uname", "-a"]),
        ("exec -- git -- x", "", ["--", "git", "--", "x"]),
        ("shell web", "web", []),
        ("shell -- python3", "", ["--", "python3"]),
        ("shell web -- python3 -i", "web", ["--", "python3", "-i"]),
        ("shell libvirt:web", "libvirt:web", []),
        ("freeze web", "web", []),
        ("freeze web --mount /", "web", ["--mount", "/"]),
        ("freeze web -- ./snapshot -x", "web", ["--", "./snapshot", "-x"]),
        ("freeze -- sync", "", ["--", "sync"]),
        ("freeze", "", []),
    ],
)
def test_the_guest_and_the_rest(text: str, guest: str, rest: list[str], has_guest: bool) -> None:
    assert read(text, has_guest)[:2] == (guest, rest)


def test_one_word_that_may_be_a_guest_or_a_program_of_the_guest() -> None:
    """With a guest given, what was a program before is still one, unless a guest is called so."""
    assert read("shell python3", True)[0] == ""
    assert read("shell python3", False)[0] == "python3"
    assert read("shell web", True)[0] == "web"


def test_one_word_that_may_be_a_guest_or_a_program_here() -> None:
    assert read("freeze true", True)[0] == ""
    assert read("freeze true", False)[0] == ""
    assert read("freeze nosuch", False)[0] == "nosuch"
    with pytest.raises(WrongWords, match=r"freeze -c sync, or qgactl freeze -- sync"):
        read("freeze sync", True)


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("exec web uname -a", "if web is the guest: qgactl exec web -- uname -a"),
        ("exec -- web uname -a", "if web is the guest: qgactl exec web -- uname -a"),
        ("exec web --timout 5 ls", "if web is the guest: qgactl exec web -- --timout 5 ls"),
        ("exec sed -i -- s/a/b/", "if sed is the program: qgactl exec GUEST -- sed -i -- s/a/b/"),
        ("shell python3", "if python3 is the guest: qgactl shell -c python3"),
        ("freeze true", "if true is the guest: qgactl freeze -c true"),
    ],
)
def test_an_error_suggests_the_other_interpretation(text: str, doubt: str) -> None:
    assert read(text, True)[2] == doubt


@pytest.mark.parametrize(
    "text", ["cp web:/a db:/b", "cp web:/a web:/b db:/c .", "cat web:/a db:/b", "cp web:/a b:c"]
)
def test_two_guests_in_paths(text: str) -> None:
    with pytest.raises(WrongWords, match="are two guests"):
        read(text, True)


@pytest.mark.parametrize(
    "text",
    [
        "ping ''",
        "fs ''",
        "passwd '' root",
        "ssh-keys '' list root",
        "suspend ''",
        "suspend '' disk",
        "call ''",
        "call '' guest-ping",
        "exec '' -- ls",
        "exec '' ls",
        "exec --timeout 5 '' -- ls",
        "shell ''",
        "freeze ''",
        "freeze '' -- true",
    ],
)
@pytest.mark.parametrize("has_guest", [True, False])
def test_a_name_that_is_empty(text: str, has_guest: bool) -> None:
    """As of a variable that is not set: the default guest is not meant."""
    with pytest.raises(WrongWords, match="the name of the guest is empty"):
        read(text, has_guest)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exec web --timout 5 -- ls", "no such option: --timout; did you mean --timeout"),
        ("exec web --dir /tmp -- pwd", "no such option: --dir; did you mean --workdir"),
        ("exec web --josn -- ls", "no such option: --josn; did you mean --json"),
        (
            "exec rm -f -- x",
            "no such option: -f; if rm is the program: qgactl exec GUEST -- rm -f -- x",
        ),
        ("shell web --usr me -- x", "no such option: --usr; did you mean --user"),
        ("freeze web --mout / -- x", "no such option: --mout; did you mean --mount"),
        (
            "shell web db -- ls",
            "two words before --: 'web' and 'db'; only the guest goes there; "
            "if web is the program: qgactl shell GUEST -- web db -- ls",
        ),
        ("exec git log -p -- x", "no such option: -p"),
        ("shell a b c -- x", "several words before --: 'a' and 'b'; only the guest goes there"),
        ("freeze web db -- ls", "two words before --: 'web' and 'db'"),
    ],
)
@pytest.mark.parametrize("has_guest", [True, False])
def test_the_word_before_dashes_is_always_the_guest(text: str, said: str, has_guest: bool) -> None:
    with pytest.raises(WrongWords) as caught:
        read(text, has_guest)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cp motd web:", "'web:' has no absolute path; type one, such as web:/tmp/"),
        ("cp motd :", "':' has no absolute path; type one, such as :/tmp/"),
        ("cp motd guest:", "':' has no absolute path; type one, such as :/tmp/"),
        ("cp motd web:a/b", "'web:a/b' has no absolute path; type one, such as web:/a/b"),
        ("cp web:a .", "'web:a' has no absolute path; type one, such as web:/a"),
        ("cp web:/a web:b .", "'web:b' has no absolute path; type one, such as web:/b"),
        ("cat web:", "'web:' has no absolute path; type one, such as web:/etc/hosts"),
        ("cat :a", "':a' has no absolute path; type one, such as :/a"),
        ("cat etc/hosts", "'etc/hosts' has no absolute path; type one, such as /etc/hosts"),
        ("cat ''", "'' has no absolute path; type one, such as /etc/hosts"),
        ("cat web", "'web' is a guest: write web:PATH"),
        ("cat web /etc/hosts", "'web' is a guest: write web:/etc/hosts"),
        ("cp motd web", "'web' is a guest: write web:PATH"),
        ("cp web /tmp", "'web' is a guest: write web:/tmp"),
    ],
)
@pytest.mark.parametrize("has_guest", [True, False])
def test_paths_in_a_guest_are_absolute(text: str, said: str, has_guest: bool) -> None:
    with pytest.raises(WrongWords) as caught:
        read(text, has_guest)
    assert str(caught.value) == said


@pytest.mark.parametrize("text", ["cat {}:/etc/hosts", "cp {}:/etc/hosts .", "cp motd {}:/tmp/"])
@pytest.mark.parametrize("is_relative", [True, False])
def test_the_path_of_a_socket_before_a_colon(
    text: str, is_relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = "./p.sock" if is_relative else f"{tmp_path}/p.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("p.sock")
        with pytest.raises(WrongWords) as caught:
            read(text.format(path), True)
        assert f"'{path}' is a socket: write unix:{path}:/" in str(caught.value)
        assert read(text.format(f"unix:{path}"), True)[0] == f"unix:{path}"
        # A file of this host is what it was.
        (tmp_path / "p.sock:12").touch()
        assert read("cp ./p.sock:12 web:/tmp/", True)[1] == ["./p.sock:12", ":/tmp/"]


def test_a_path_in_a_guest_may_have_a_colon() -> None:
    device = "/sys/bus/pci/devices/0000:00:1f.0/config"
    assert read(f"cat {device}", True)[:2] == ("", [device])


def test_a_file_of_this_host_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be copied by its name before, and still can be to a guest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12:30").touch()
    assert read("cp 12:30 web:/x", True)[:2] == ("web", ["12:30", ":/x"])


@pytest.mark.parametrize("text", ["suspend deep", "time --set soon"])
def test_a_word_that_is_neither(text: str) -> None:
    with pytest.raises(WrongWords, match=r"invalid (value|time).*or (the )?name"):
        read(text, True)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("web:/etc/hosts", ("web", "/etc/hosts")),
        ("web:", ("web", "")),
        ("web:a:b", ("web", "a:b")),
        (":/x", ("", "/x")),
        ("guest:x", ("", "x")),
        ("./web:x", None),
        ("/web:x", None),
        ("x", None),
        ("unix:/s:/etc/a:b", ("unix:/s", "/etc/a:b")),
        ("vsock:3:1234:/etc/a", ("vsock:3:1234", "/etc/a")),
        ("proxmox:100:/etc/a", ("proxmox:100", "/etc/a")),
        ("libvirt:web:/etc/a", ("libvirt:web", "/etc/a")),
        ("libvirt:qemu:///system/web:/a", ("libvirt:qemu:///system/web", "/a")),
        (
            "libvirt:qemu+ssh://root@host:22/system/web:/a",
            ("libvirt:qemu+ssh://root@host:22/system/web", "/a"),
        ),
        ("unix:/s", None),
    ],
)
def test_guest_and_path(word: str, parts: Any) -> None:
    assert split(word) == parts
