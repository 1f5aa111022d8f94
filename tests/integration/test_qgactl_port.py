"""qgactl port: raw bytes through a socket in place of QEMU's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

QGACTL = [sys.executable, "-c", "from qga.ctl.main import main; main()"]
PATIENCE = 30.0
MUCH = bytes(range(256)) * 20_000


class Qemu:
    """The other end of the socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(PATIENCE)

    def accept(self) -> socket.socket:
        link, _ = self._listener.accept()
        link.settimeout(PATIENCE)
        return link

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    qemu = Qemu(tmp_path / "port.sock")
    yield qemu
    qemu.close()


@contextmanager
def connected(
    qemu: Qemu, *options: str, stdin: int = subprocess.PIPE
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    argv = [*QGACTL, "port", "connect", *options, str(qemu.path)]
    with subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE) as process:
        try:
            with qemu.accept() as link:
                yield process, link
        finally:
            process.kill()


def take(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = link.recv(count - len(data))
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(data)
    pipe.flush()


def test_what_comes_is_printed_and_what_is_typed_is_sent(qemu: Qemu) -> None:
    with connected(qemu) as (process, link):
        assert process.stdin
        assert process.stdout
        link.send(b"from \xff guest\n")
        assert process.stdout.readline() == b"from \xff guest\n"
        process.stdin.write(b"to \xff guest")
        process.stdin.flush()
        assert take(link, 10) == b"to \xff guest"


def test_without_a_terminal_it_prints_on_after_the_end_of_the_input(qemu: Qemu) -> None:
    with connected(qemu, stdin=subprocess.DEVNULL) as (process, link):
        assert process.stdout
        for _ in range(2):
            link.send(b"line\n")
            assert process.stdout.readline() == b"line\n"
        link.close()
        assert process.wait(PATIENCE) == 0


def test_with_end_it_waits_until_all_was_taken(qemu: Qemu) -> None:
    with connected(qemu, "--end") as (process, link):
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"all")
        process.stdin.close()
        assert take(link, 3) == b"all"
        assert link.recv(1) == b""  # that was the end, and still it listens
        link.send(b"answer")
        link.close()
        assert process.stdout.read() == b"answer"
        assert process.wait(PATIENCE) == 0


def test_much_at_once_both_ways(qemu: Qemu) -> None:
    received: list[bytes] = []
    with connected(qemu) as (process, link):
        assert process.stdin
        assert process.stdout
        threads = [
            threading.Thread(target=link.sendall, args=(MUCH,)),
            threading.Thread(target=lambda: received.append(take(link, len(MUCH)))),
            threading.Thread(target=write, args=(process.stdin, MUCH[::-1])),
        ]
        for thread in threads:
            thread.start()
        assert process.stdout.read(len(MUCH)) == MUCH
        for thread in threads:
            thread.join()
    assert received == [MUCH[::-1]]


def test_what_has_come_is_printed_though_nothing_can_be_sent(qemu: Qemu) -> None:
    with connected(qemu) as (process, link):
        link.send(b"last words")
        link.close()
        output, _ = process.communicate(b"to nobody", PATIENCE)
    assert (process.returncode, output) == (0, b"last words")


@pytest.mark.parametrize(("key", "status"), [(b"\x04", 0), (b"\x03", 130)])
def test_keys_that_end_it(qemu: Qemu, key: bytes, status: int) -> None:
    keyboard, terminal = os.openpty()
    start = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    argv = [*QGACTL[:2], start + QGACTL[2], "port", "connect", str(qemu.path)]
    with subprocess.Popen(argv, stdin=terminal, start_new_session=True) as process:
        try:
            with qemu.accept() as link:
                os.write(keyboard, b"typed\n")
                assert take(link, 6) == b"typed\n"
                os.write(keyboard, key)
                assert process.wait(PATIENCE) == status
                assert link.recv(1) == b""
        finally:
            process.kill()
            os.close(keyboard)
            os.close(terminal)


def test_sigterm_ends_it(qemu: Qemu) -> None:
    with connected(qemu) as (process, link):
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
        assert link.recv(1) == b""


def test_no_such_socket(tmp_path: Path) -> None:
    argv = [*QGACTL, "port", "connect", f"{tmp_path}/none"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"qgactl: unix:{tmp_path}/none: No such file or directory: is the guest running, and does "
        "it have a port with its socket at this path?\n"
    )
