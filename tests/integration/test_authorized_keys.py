"""The program that reads and writes a user's authorized_keys, in substitute home directories."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga import QgaError
from tests.differences import differs

ssh: Any = import_module("qga.commands.ssh")
HELPER = ssh._HELPER
MIB = 1024 * 1024
MEMORY = 256 * MIB
KEY = "ssh-ed25519 AAAA a@host"


class Home:
    def __init__(self, directory: Path) -> None:
        self.path = directory
        self.ssh = directory / ".ssh"
        self.ssh.mkdir(mode=0o700)
        self.keys = self.ssh / "authorized_keys"

    def run(self, action: str, *keys: str) -> tuple[int, bytes]:
        """Exit status and output of the helper, within MEMORY."""
        argv = [sys.executable, "-IS", HELPER, action, "root", str(self.path)]
        done = subprocess.run(
            argv,
            input="".join(f"{key}\n" for key in keys).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        )
        assert b"Traceback" not in done.stdout
        return done.returncode, done.stdout

    def refusal(self, action: str, *keys: str) -> str:
        status, said = self.run(action, *keys)
        assert status == 1
        start = f"failed to read '{self.keys}': "
        assert said.decode().startswith(start), said[:200]
        return said.decode().removeprefix(start).strip()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def zero(keys: Path) -> None:
    keys.symlink_to("/dev/zero")


def terminal(keys: Path) -> None:
    keys.symlink_to("/dev/ptmx")


def fifo(keys: Path) -> None:
    os.mkfifo(keys)


def full_fifo(keys: Path) -> None:
    os.mkfifo(keys)
    os.open(keys, os.O_RDWR)  # which somebody has open, so that a read would wait


def a_socket(keys: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(keys))


def somebody_else_s(keys: Path) -> None:
    keys.write_text(KEY)
    os.chown(keys, 12345, 12345)


def large(keys: Path) -> None:
    with keys.open("wb") as file:
        file.truncate(16 * MIB + 1)


def many_lines(keys: Path) -> None:
    keys.write_bytes(b"\n" * (16 * MIB))


def binary(keys: Path) -> None:
    with keys.open("wb") as file:
        file.truncate(16 * MIB)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (zero, "it is not a regular file"),
        (terminal, "it is not a regular file"),
        (fifo, "it is not a regular file"),
        (full_fifo, "it is not a regular file"),
        (a_socket, "No such device or address"),
        (somebody_else_s, "it is owned by uid 12345"),
        (large, "it is larger than 16 MiB"),
        (many_lines, "it has more than 100000 lines"),
        (binary, "it is not a text file"),
    ],
)
@differs("keys-that-cannot-be-read")
@pytest.mark.parametrize("action", ["get", "add", "remove"])
def test_what_is_not_a_file_of_keys(
    home: Home, action: str, make: Callable[[Path], None], reason: str
) -> None:
    make(home.keys)
    before = os.lstat(home.keys)
    assert home.refusal(action, KEY).endswith(reason)
    after = os.lstat(home.keys)
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)
    assert os.listdir(home.ssh) == ["authorized_keys"]


def test_a_large_file_is_read_whole(home: Home) -> None:
    """Files up to the limit, with and without a newline at the end."""
    line = "ssh-rsa " + "A" * 500_000
    count = 16 * MIB // (len(line) + 1)
    for text in ("\n".join([line] * count), f"{line}\n" * count):
        home.keys.write_text(text)
        status, said = home.run("get")
        assert (status, said) == (0, f"{line}\n".encode() * count)


def test_what_would_be_too_large_is_not_written(home: Home) -> None:
    home.keys.write_text(KEY)
    status, said = home.run("add", *(f"{number} {'A' * 4 * MIB}" for number in range(4)))
    assert status == 1
    assert said.decode() == f"failed to write to '{home.keys}': it is larger than 16 MiB\n"
    assert home.keys.read_text() == KEY
    assert os.listdir(home.ssh) == ["authorized_keys"]


@differs("key-file-lines")
@pytest.mark.parametrize("before", ["", KEY, f"{KEY}\n", f"# x\n\n{KEY}\n\n", "# x"])
def test_the_last_line_ends_with_a_newline(home: Home, before: str) -> None:
    """Otherwise the next `>>` would join two keys, and both would be lost."""
    home.keys.write_text(before)
    assert home.run("add", "ssh-rsa B")[0] == 0
    whole = before if not before or before.endswith("\n") else f"{before}\n"
    assert home.keys.read_text() == f"{whole}ssh-rsa B\n"
    with home.keys.open("a") as file:
        file.write("ssh-rsa C\n")
    assert home.run("remove", "ssh-rsa B")[0] == 0
    assert home.keys.read_text() == f"{whole}ssh-rsa C\n"
    assert home.run("reset", "ssh-rsa D")[0] == 0
    assert home.keys.read_text() == "ssh-rsa D\n"
    assert home.run("remove", "ssh-rsa D")[0] == 0
    assert home.keys.read_text() == ""


@pytest.mark.parametrize("blank", [" ", "\t", "\f", "\r", "\v", "\x1c", "\x85", "\u00a0"])
def test_blanks_around_a_key(home: Home, blank: str) -> None:
    """As with QEMU's agent, whose C library knows fewer than Python."""
    home.keys.write_bytes(f"{blank}{KEY}{blank}\n".encode())
    told = KEY if blank in " \t\f\r" else f"{blank}{KEY}{blank}"
    assert home.run("get") == (0, f"{told}\n".encode())


def test_a_link_to_keys_of_one_s_own_is_followed(home: Home) -> None:
    (home.path / "elsewhere").write_text(f"{KEY}\n")
    home.keys.symlink_to(home.path / "elsewhere")
    assert home.run("get") == (0, f"{KEY}\n".encode())


def dangling(home: Home) -> None:
    home.keys.symlink_to("nowhere")


def loop(home: Home) -> None:
    home.keys.symlink_to(home.keys.name)


def link_through_a_file(home: Home) -> None:
    home.keys.symlink_to("/etc/passwd/keys")


def empty(home: Home) -> None:
    home.keys.touch()


@pytest.mark.parametrize("make", [dangling, loop, link_through_a_file, empty])
def test_without_keys_so_far(home: Home, make: Callable[[Home], None]) -> None:
    """A link that leads nowhere is replaced, and its target is not created."""
    make(home)
    assert home.run("remove", KEY) == (0, b"")
    assert home.run("add", KEY) == (0, b"")
    assert not home.keys.is_symlink()
    assert home.keys.read_text() == f"{KEY}\n"
    assert os.listdir(home.ssh) == ["authorized_keys"]


def ssh_is_a_file(home: Home) -> str:
    home.ssh.rmdir()
    home.ssh.touch()
    return "File exists"


def ssh_leads_nowhere(home: Home) -> str:
    home.ssh.rmdir()
    home.ssh.symlink_to("nowhere")
    return "File exists"


def home_is_a_file(home: Home) -> str:
    home.ssh.rmdir()
    home.path.rmdir()
    home.path.touch()
    return "Not a directory"


def no_home(home: Home) -> str:
    home.ssh.rmdir()
    home.path.rmdir()
    return "No such file or directory"


@pytest.mark.parametrize("make", [ssh_is_a_file, ssh_leads_nowhere, home_is_a_file, no_home])
def test_without_a_directory_for_keys(home: Home, make: Callable[[Home], str]) -> None:
    reason = make(home)
    assert home.run("remove", KEY) == (0, b"")
    refusal = f"failed to create directory '{home.ssh}': {reason}\n".encode()
    assert home.run("add", KEY) == home.run("reset", KEY) == (1, refusal)


def test_a_write_that_fails(home: Home) -> None:
    """In procfs no file can be created, not even by root."""
    home.ssh.rmdir()
    home.ssh.symlink_to("/proc")
    for action in ("add", "reset"):
        status, said = home.run(action, KEY)
        start = f"failed to write to '{home.keys}': Failed to create file \u201c{home.keys}."
        assert status == 1
        assert said.decode().startswith(start)
        assert said.decode().endswith("\u201d: No such file or directory\n")


@differs("key-file-on-the-way")
def test_a_file_that_cannot_be_replaced(home: Home) -> None:
    home.keys.mkdir()
    status, said = home.run("reset", KEY)
    assert status == 1
    start = f"failed to write to '{home.keys}': Failed to rename file \u201c{home.keys}.qga-"
    assert said.decode().startswith(start)
    assert said.decode().endswith(
        f" to \u201c{home.keys}\u201d: g_rename() failed: Is a directory\n"
    )
    assert os.listdir(home.ssh) == ["authorized_keys"]


def test_an_agent_that_cannot_become_the_user(home: Home) -> None:
    """As in a container that lacks the capability."""
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-IS", HELPER, "get"]
    done = subprocess.run(
        [*argv, "root", home.path], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == b"failed to set group for user 'root': Operation not permitted\n"


@differs("key-with-nul")
@pytest.mark.parametrize("key", ["#", "# ssh-rsa A", "ssh-rsa A\nssh-rsa B", "ssh-rsa A\0", "\0"])
@pytest.mark.parametrize("action", ["add", "remove"])
def test_what_is_not_a_line_with_a_key(action: str, key: str) -> None:
    """Refused before any file is opened: the account does not exist."""
    with pytest.raises(QgaError) as caught:
        ssh._ask_helper("qga-does-not-exist", action, [key])
    assert caught.value.desc == f"invalid OpenSSH public key: '{key}'"
