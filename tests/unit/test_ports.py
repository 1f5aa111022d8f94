"""Data ports as a program of the guest uses them; a socket stands for the device."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from errno import ENODEV, ENOENT
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
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A guest without ports; folders in the place of the kernel's."""
    found: dict[str, ports._Found] = {}
    monkeypatch.setattr(ports, "_found", found)
    for name, folder in (("_PORTS", "class"), ("_DEVICES", "dev"), ("_DEBUG", "debug")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(ports, name, str(tmp_path / folder))
    yield tmp_path
    for each in found.values():
        os.close(each.file)


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


def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are searched for from now on."""
    names: list[str] = []
    search = ports._search

    def count(name: str) -> Port:
        names.append(name)
        return search(name)

    monkeypatch.setattr(ports, "_search", count)
    return names


def test_a_port_is_searched_for_once(two: list[Port], monkeypatch: pytest.MonkeyPatch) -> None:
    searched = searches(monkeypatch)
    names = [two[0].name, f"/dev/virtio-ports/{two[0].name}"]
    assert [ports.find(name) for name in names * 3] == [two[0]] * 6
    assert searched == names
    assert not os.get_inheritable(ports._found[two[0].name].file)


def test_a_port_that_has_another_name_now_is_searched_for(system: Path, two: list[Port]) -> None:
    assert ports.find("org.qga.data.0") == two[0]
    (system / "class/vport0p1/name").write_text("org.qga.other\n")
    with pytest.raises(FileNotFoundError):
        ports.find("org.qga.data.0")
    assert ports.find("org.qga.other").device == two[0].device


def test_a_port_that_was_unplugged_is_searched_for(
    two: list[Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports.find(two[0].name)
    before = len(os.listdir("/proc/self/fd"))
    searched, read = searches(monkeypatch), os.pread
    gone = ports._found[two[0].name].file

    def pread(fd: int, size: int, offset: int) -> bytes:
        if fd == gone and not searched:  # as the kernel does
            raise OSError(ENODEV, os.strerror(ENODEV))
        return read(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert [ports.find(two[0].name) for _ in range(3)] == [two[0]] * 3
    assert searched == [two[0].name]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("content", [None, "", "org.qga.data.0\n"])
def test_a_descriptor_that_the_program_has_closed_is_not_used(
    tmp_path: Path, system: Path, two: list[Port], content: str | None
) -> None:
    """As a program does that becomes a daemon. The number may then be that of a file of its own."""
    assert ports.find("org.qga.data.0") == two[0]
    (system / "class/vport0p1/name").write_text("org.qga.other\n")
    number = ports._found["org.qga.data.0"].file
    os.close(number)
    if content is not None:
        (tmp_path / "own").write_text(content)
        assert os.open(tmp_path / "own", os.O_RDONLY) == number
    with pytest.raises(FileNotFoundError):
        ports.find("org.qga.data.0")
    if content is not None:
        assert os.read(number, 100) == content.encode()
        os.close(number)


def test_another_file_with_the_number_of_an_old_port_stays_open(
    tmp_path: Path, system: Path
) -> None:
    for number in range(8):
        ports.find(add_port(system, f"vport1p{number}", f"port{number}").name)
    number = ports._found["port0"].file
    os.close(number)
    assert os.open(tmp_path, os.O_RDONLY) == number
    ports.find(add_port(system, "vport1p9", "port9").name)
    assert os.readlink(f"/proc/self/fd/{number}") == str(tmp_path)
    os.close(number)


def test_few_descriptors_are_kept(system: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        port = add_port(system, f"vport1p{number}", f"port{number}")
        assert ports.find(port.name) == port
    assert len(os.listdir("/proc/self/fd")) == before + 8
    assert ports.find("port0").name == "port0"


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
