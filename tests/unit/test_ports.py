"""Data ports as a program of the guest uses them; a socket stands for the device."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from errno import ENOENT
from pathlib import Path

import pytest

from qga import ports
from qga.ports import Ends, Port, PortFile

DEBUG = """\
name: org.qga.data.0
guest_connected: {guest}
host_connected: {host}
outvq_full: 0
is_console: {console}
console_vtermno: 0
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A guest without ports; folders in the place of the kernel's."""
    for name, folder in (("_PORTS", "class"), ("_DEVICES", "dev"), ("_DEBUG", "debug")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(ports, name, str(tmp_path / folder))
    return tmp_path


def add_port(system: Path, entry: str, name: str | None) -> Port:
    (system / "class" / entry).mkdir()
    if name is not None:
        (system / "class" / entry / "name").write_text(f"{name}\n")
    return Port(name or "", str(system / "dev" / entry))


@pytest.fixture
def two(system: Path) -> list[Port]:
    return [add_port(system, "vport0p1", "org.qga.data.0"), add_port(system, "vport0p2", None)]


def test_ports_are_listed_also_without_a_name(two: list[Port]) -> None:
    assert ports.list_ports() == two


def test_no_ports_without_the_device(system: Path) -> None:
    (system / "class").rmdir()
    assert ports.list_ports() == []


def test_a_port_is_found_by_its_name_its_device_and_udevs_link(two: list[Port]) -> None:
    first, second = two
    for name in (first.name, first.device, "/dev/virtio-ports/org.qga.data.0"):
        assert ports.find(name) == first
    assert ports.find(second.device) == second


@pytest.mark.parametrize("name", ["none", "", "/dev/null", "/dev/virtio-ports/"])
def test_a_file_that_is_not_a_port_is_not_found(two: list[Port], name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ports.find(name)
    assert caught.value.errno == ENOENT
    assert caught.value.strerror == (
        f"no port '{name}': this guest has org.qga.data.0, {two[1].device}"
    )


@pytest.mark.usefixtures("system")
def test_a_guest_without_ports_says_so() -> None:
    with pytest.raises(FileNotFoundError, match="no port 'x': this guest has none"):
        ports.find("x")


@pytest.mark.parametrize(
    ("guest", "host", "console", "expected"),
    [
        (0, 1, "no", Ends(False, True)),
        (1, 0, "no", Ends(True, False)),
        (0, 0, "yes", Ends(True, False)),
    ],
)
def test_the_ends_as_the_kernel_reports_them(
    system: Path, two: list[Port], guest: int, host: int, console: str, expected: Ends
) -> None:
    text = DEBUG.format(guest=guest, host=host, console=console)
    (system / "debug/vport0p1").write_text(text)
    assert ports.ends(two[0]) == expected


def test_without_debugfs_processes_are_looked_at(system: Path, two: list[Port]) -> None:
    device = Path(two[0].device)
    device.touch()
    assert ports.ends(two[0]) == Ends(False, None)
    with device.open():
        assert ports.ends(two[0]) == Ends(True, None)
        command = Path("/proc/self/comm").read_text().strip()
        assert ports.holders(two[0]) == [f"{command} (process {os.getpid()})"]
    assert ports.holders(two[0]) == []


@pytest.fixture
def pair() -> Iterator[tuple[PortFile, socket.socket]]:
    """A port and its other end."""
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    with PortFile(Port("test", "/dev/vport9p9"), mine.detach()) as port, theirs:
        yield port, theirs


def test_bytes_both_ways(pair: tuple[PortFile, socket.socket]) -> None:
    port, host = pair
    assert port.wait_for_host(0)
    assert port.write(b"hello") == 5
    assert host.recv(100) == b"hello"
    host.send(b"\xff\n")
    assert port.read(100) == b"\xff\n"


def test_lines(pair: tuple[PortFile, socket.socket]) -> None:
    port, host = pair
    host.send(b"one\ntwo\nrest")
    host.close()
    assert list(io.BufferedReader(port)) == [b"one\n", b"two\n", b"rest"]


def test_a_read_waits_for_the_host_to_send(pair: tuple[PortFile, socket.socket]) -> None:
    port, host = pair
    timer = threading.Timer(0.05, host.send, (b"late",))
    timer.start()
    assert port.read(100) == b"late"
    timer.join()


def test_a_write_waits_for_room(pair: tuple[PortFile, socket.socket]) -> None:
    port, host = pair
    content = bytes(range(256)) * 20_000
    received = bytearray()

    def receive() -> None:
        while len(received) < len(content):
            received.extend(host.recv(65536))

    reader = threading.Thread(target=receive)
    reader.start()
    assert port.write(memoryview(content)) == len(content)
    reader.join()
    assert received == content


def test_without_a_host_reads_end_and_writes_fail(pair: tuple[PortFile, socket.socket]) -> None:
    port, host = pair
    host.close()
    assert not port.host_connected
    assert not port.wait_for_host(0)
    assert port.read(100) == b""
    with pytest.raises(BrokenPipeError):
        port.write(b"to nobody")


def test_closing_gives_the_descriptor_back(pair: tuple[PortFile, socket.socket]) -> None:
    port, _ = pair
    fd = port.fileno()
    port.close()
    port.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
