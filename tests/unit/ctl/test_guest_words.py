"""Which words of a command line name the guest; what the others are then."""

from __future__ import annotations

import shlex
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
        ("cp guest:/etc/hosts .", "", [":/etc/hosts", "."]),
        ("cp -r a b web:/x", "web", ["-r", "a", "b", ":/x"]),
        ("cp :/etc/hosts .", "", [":/etc/hosts", "."]),
        ("cp ./a:b web:x", "web", ["./a:b", ":x"]),
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
        ("exec rm -f -- x", "", ["rm", "-f", "--", "x"]),
        ("exec git log -- x", "", ["git", "log", "--", "x"]),
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
        ("exec git log -- x", "if git is the guest: qgactl exec git -- log -- x"),
        ("exec sed -i -- s/a/b/", "if sed is the program: qgactl exec GUEST -- sed -i -- s/a/b/"),
        ("shell python3", "if python3 is the guest: qgactl shell -c python3"),
        ("freeze true", "if true is the guest: qgactl freeze -c true"),
    ],
)
def test_the_other_reading_is_named(text: str, doubt: str) -> None:
    assert read(text, True)[2] == doubt


@pytest.mark.parametrize(
    "text", ["cp web:/a db:/b", "cp web:/a web:/b db:/c .", "cat web:/a db:/b", "cp web:/a b:c"]
)
def test_two_guests_in_paths(text: str) -> None:
    with pytest.raises(WrongWords, match="are two guests"):
        read(text, True)


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
