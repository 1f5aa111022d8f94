"""Data ports: virtio-serial ports beside the agent's, for programs that talk to the host.

    from qga import ports

    with ports.open_port("org.qga.data.0") as port:
        port.wait_for_host()
        port.write(b"hello\n")

`find` and `list_ports` return only ports, so that a name that the host chose never leads to any
other file.

This relies on how Linux's virtio_console behaves:

- A read returns one buffer of at most 4096 bytes. Without a host it returns 0 bytes; after an
  unplug it fails with ENODEV.
- A write takes at most 32 KiB. The host gets it even if the port is closed right after it.
- Only one program may have a port open.
- Without a host poll(2) reports a hang-up, and also POLLIN unless the port was unplugged. The only
  sign that the host has connected is an edge of POLLOUT.
"""

from __future__ import annotations

import io
import os
import select
import time
from _thread import allocate_lock
from errno import EBUSY, ENODEV, ENOENT, EPIPE

from qga import task
from qga.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

    from typing_extensions import Buffer

_PORTS = "/sys/class/virtio-ports"
_DEVICES = "/dev"
_LINKS = "/dev/virtio-ports/"  # made by udev
_DEBUG = "/sys/kernel/debug/virtio-ports"
_PROCESSES = "/proc"
_PAGE = 4096  # bytes: all that a file of sysfs or debugfs has at once
_MOST_FOUND = 8  # a descriptor each


class Port(NamedTuple):
    """name: the name that the host gave it, or "". device: `/dev/vportNpM`."""

    name: str
    device: str


class _Found(NamedTuple):
    """A port that was found. file: a descriptor of its file in sysfs, with this content.

    status: of this file. A program may close the descriptor, as daemons do, and reuse its number.
    """

    port: Port
    file: int
    content: bytes
    status: os.stat_result

    @property
    def is_open(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.file), self.status)
        except OSError:
            return False


_finding = allocate_lock()  # so that no descriptor is used after it was closed
_found: dict[str, _Found] = {}
"""By the names that were asked for."""


class Ends(NamedTuple):
    """Which ends of a port are open; None if only opening it would show that."""

    guest: bool
    host: Optional[bool]


def list_ports() -> list[Port]:
    """The virtio-serial ports of this guest."""
    try:
        entries = sorted(os.listdir(_PORTS))
    except FileNotFoundError:  # no virtio-serial device
        return []
    return [Port(_name_of(entry), f"{_DEVICES}/{entry}") for entry in entries]


def find(name: str) -> Port:
    """The port with this name; `/dev/vportNpM` and udev's link to it also work.

    Raises FileNotFoundError with the names of the ports that exist.
    """
    port = _found_before(name)
    if port is None:
        port = _search(name)
        _remember(name, port)
    return port


def _search(name: str) -> Port:
    wanted = name[len(_LINKS) :] if name.startswith(_LINKS) else name
    linked = _linked(wanted)
    if linked is not None:
        return linked
    known = list_ports()
    for port in known:
        if wanted and wanted in (port.name, port.device):
            return port
    names = ", ".join(port.name or port.device for port in known)
    there = f"this guest has {names}" if names else "this guest has none"
    raise FileNotFoundError(ENOENT, f"no port '{name}': {there}")


def open_port(name: str) -> PortFile:
    """Open a port, whether or not the host has connected to it.

    Raises FileNotFoundError if there is no such port, OSError with EBUSY if it is open already.
    """
    port = find(name)
    try:
        fd = os.open(port.device, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        reason = error.strerror
        if error.errno == EBUSY:
            by = ", ".join(holders(port)) or "another program"
            reason = f"{by} has it open"
        raise OSError(error.errno, f"cannot open port '{name}': {reason}") from None
    return PortFile(port, fd)


def ends(port: Port) -> Ends:
    """Which ends are open, without touching the port."""
    try:
        shown = _content(f"{_DEBUG}/{os.path.basename(port.device)}")
        facts = dict(line.split(": ", 1) for line in shown.splitlines())
        taken = facts["guest_connected"] != "0" or facts["is_console"] != "no"
        return Ends(taken, facts["host_connected"] != "0")
    except (OSError, KeyError, ValueError):  # debugfs is not mounted, or not readable
        return Ends(bool(holders(port)), None)


def holders(port: Port) -> list[str]:
    """Who has a port open, such as `qemu-ga (process 7)`, as far as /proc may be read."""
    return [
        f"{_command_of(process)} (process {process})"
        for process in filter(str.isdecimal, os.listdir(_PROCESSES))
        if port.device in _open_files(process)
    ]


def host_connected(fd: int) -> bool:
    """Whether the host's end of an open port is connected. Raises OSError if it was unplugged."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    events = sum(happened for _, happened in poll.poll(0))
    if events & select.POLLHUP and not events & select.POLLIN:
        raise OSError(ENODEV, os.strerror(ENODEV))
    return not events & select.POLLHUP


class PortFile(io.RawIOBase):
    """An open port, as a file of bytes.

    `read` waits for data and returns what there is; b"" means that the host is not connected.
    `write` waits until everything is written. For lines and text wrap it, as in
    `io.BufferedReader(port)`.

    port: the port that it belongs to.
    """

    def __init__(self, port: Port, fd: int) -> None:
        super().__init__()
        self.port = port
        self._fd = fd

    @property
    def host_connected(self) -> bool:
        """Whether the host is connected now. Raises OSError if the port was unplugged."""
        return host_connected(self._fd)

    def wait_for_host(self, timeout: float | None = None) -> bool:
        """Wait until the host is connected, at most `timeout` seconds. Returns whether it is."""
        if host_connected(self._fd):
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        with select.epoll() as edges:
            edges.register(self._fd, select.EPOLLOUT | select.EPOLLET)
            while not self.host_connected:
                rest = None if deadline is None else deadline - time.monotonic()
                if rest is not None and rest <= 0:
                    return False
                edges.poll(rest)
        return True

    def fileno(self) -> int:
        return self._fd

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        while True:
            try:
                return os.readv(self._fd, [buffer])
            except BlockingIOError:
                self._wait_for(select.POLLIN)

    def write(self, data: Buffer) -> int:
        """Write all. Raises BrokenPipeError if the host is no longer connected."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                if self._wait_for(select.POLLOUT) & select.POLLHUP:
                    reason = f"the host is not connected to the port '{self.port.name}'"
                    raise BrokenPipeError(EPIPE, reason) from None
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)

    def _wait_for(self, events: int) -> int:
        poll = select.poll()
        poll.register(self._fd, events)
        interval = None if task.current() is None else task.INTERVAL * 1000
        while not (happened := poll.poll(interval)):
            task.stop_if_given_up()
        return sum(event for _, event in happened)


def _found_before(name: str) -> Port | None:
    """The port that was found by this name, if it is still there.

    Its file is gone with it, also if the next port has the same device.
    """
    with _finding:
        found = _found.get(name)
        if found is None:
            return None
        try:
            if found.is_open and os.pread(found.file, _PAGE, 0) == found.content:
                return found.port
        except OSError:  # unplugged
            pass
        _forget(name)
    return None


def _forget(name: str) -> None:
    found = _found.pop(name)
    if found.is_open:
        os.close(found.file)


def _remember(name: str, port: Port) -> None:
    """Have `_found_before` find a port."""
    with _finding:
        if name in _found:  # another thread was quicker
            return
        if len(_found) >= _MOST_FOUND:
            _forget(next(iter(_found)))
        try:
            file = os.open(f"{_PORTS}/{os.path.basename(port.device)}/name", os.O_RDONLY)
        except OSError:  # unplugged
            return
        content = f"{port.name}\n".encode("ascii", "replace")
        _found[name] = _Found(port, file, content, os.fstat(file))


def _linked(name: str) -> Port | None:
    """The port that udev's link leads to, if it has that name: quicker than to read all names."""
    if not name or "/" in name:
        return None
    try:
        entry = os.path.basename(os.readlink(_LINKS + name))
    except (OSError, ValueError):  # no udev, no such port, or a name that no file has
        return None
    return Port(name, f"{_DEVICES}/{entry}") if _name_of(entry) == name else None


def _name_of(entry: str) -> str:
    try:
        return _content(f"{_PORTS}/{entry}/name").rstrip("\n")
    except OSError:  # it has no name, or was just unplugged
        return ""


def _content(path: str) -> str:
    """A small file of the kernel. A text file of Python's takes several times as long."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, _PAGE).decode("ascii", "replace")
    finally:
        os.close(fd)


def _open_files(process: str) -> Iterator[str]:
    directory = f"{_PROCESSES}/{process}/fd"
    try:
        descriptors = os.listdir(directory)
    except OSError:  # it has exited, or may not be read
        return
    for descriptor in descriptors:
        try:
            yield os.readlink(f"{directory}/{descriptor}")
        except OSError:  # closed in the meantime
            continue


def _command_of(process: str) -> str:
    try:
        with open(f"{_PROCESSES}/{process}/comm", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "somebody"
