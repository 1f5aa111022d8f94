"""Files to and from the host over a data port, as raw bytes instead of base64.

The host connects to the port's socket before it sends the request. A port has no end of file, so
the count and the checksum in the reply show that the transfer is complete. If the host disconnects
before that, the transfer ends. The port is released in any case.
"""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL, EISDIR, EPIPE
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any, Optional

from qga import (
    Caller,
    CommandGroup,
    NotRequired,
    QgaError,
    c_string,
    command,
    stop_if_given_up,
    until_given_up,
)
from qga.records import TypedDict
from qga.wording import counted

from .files import open_file, open_flags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict
    from qga.ports import Port, PortFile

MAX_WITHOUT_SIZE = 48 * 1024 * 1024
"""Bytes to read at most from a file whose size is unknown, such as those in procfs."""

_CHUNK = 256 * 1024  # bytes

_VSOCK_DESCRIPTORS = 6  # of a port: its listener, and clients

_TO_READ = open_flags("r")
_TO_WRITE = open_flags("w")

QgaPort = TypedDict(
    "QgaPort",
    {"name": str, "device": str, "busy": bool, "host-connected": NotRequired[bool]},
)


class QgaVsockPort(TypedDict):
    name: str
    port: int
    token: str


class QgaTransfer(TypedDict):
    count: int
    sha256: str


def _may_read(policy: Policy, given: dict[str, Any]) -> Verdict:
    return policy.judge_file(given["path"], _TO_READ)


def _may_write(policy: Policy, given: dict[str, Any]) -> Verdict:
    return policy.judge_file(given["path"], _write_flags(given.get("offset", 0)))


class Transfer(CommandGroup):
    """Data ports and file transfers."""

    @command(access="audit", blocking=True)
    def qga_get_ports(self) -> list[QgaPort]:
        """List the virtio-serial ports of the guest, including the agent's.

        `busy` is true if a program in the guest has the port open, `host-connected` (if known) if
        one on the host has.
        """
        from qga.ports import list_ports

        return [_describe(port) for port in list_ports()]

    @command(access="file-read", blocking=True, changes=True)
    def qga_open_vsock_port(self, *, caller: Caller) -> QgaVsockPort:
        """Open a data port over vsock, for a guest without a free one of virtio-serial.

        The host connects to the vsock port `port` within 10 s and sends `token` and a newline. Then
        requests of this channel can use `name` as a data port, one command at a time, until the
        host disconnects. Only the CIDs in `allow-cids` may connect. A channel can have at most 16
        such ports.
        """
        from ._vsock_ports import open_vsock_port

        channel = caller.channel
        (cids,) = [each.allow_cids for each in self.agent.config.channels if each.name == channel]
        self.agent.descriptors.take(channel, _VSOCK_DESCRIPTORS)

        def give() -> None:
            self.agent.descriptors.give(channel, _VSOCK_DESCRIPTORS)

        try:
            port = open_vsock_port(self.agent.loop, channel, cids, give)
        except BaseException:
            give()
            raise
        return {"name": port.name, "port": port.number, "token": port.token}

    @command(
        access="file-read",
        blocking=True,
        changes=True,
        timed=False,
        verdict=_may_read,
        like=("guest-file-open", "guest-file-read"),
    )
    def qga_file_send(
        self, path: str, port: str, offset: int = 0, count: Optional[int] = None, *, caller: Caller
    ) -> QgaTransfer:
        """Send a file to the host over a data port, as raw bytes.

        path: full path of a regular file.
        port: name of a data port that the host is connected to.
        offset: where to start in the file.
        count: maximum number of bytes, by default all up to the end.
        Returns the number of bytes sent, and their checksum.
        """
        from ._ports import connected_port

        check_range(offset, count)
        with connected_port(port, caller) as file:
            digest = Digest()
            for chunk in read_range(caller, path, offset, count):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _interrupted(error, digest.count) from error
                digest.add(chunk)
        return digest.result()

    @command(
        access="file-write",
        blocking=True,
        timed=False,
        verdict=_may_write,
        like=("guest-file-open", "guest-file-write"),
    )
    def qga_file_receive(
        self,
        path: str,
        port: str,
        count: int,
        offset: int = 0,
        keep: bool = True,
        *,
        caller: Caller,
    ) -> QgaTransfer:
        """Receive raw bytes from the host over a data port, and write them to a file.

        path: full path of the file. A new one gets mode 0644 less the agent's umask.
        port: name of a data port that the host is connected to.
        count: exact number of bytes to receive.
        offset: where to write in the file. With 0 it is created or truncated first, otherwise it
            must exist.
        keep: whether the bytes received so far are kept after an error. Otherwise the file is
            removed, also one that was there before.
        Returns the number of bytes received, and their checksum.
        """
        from ._ports import connected_port

        check_range(offset, count)
        with connected_port(port, caller) as file:
            fd = open_file(caller.policy, path, "w" if not offset else "r+", _write_flags(offset))
            digest = Digest()
            try:
                if offset:
                    os.lseek(fd, offset, os.SEEK_SET)
                for chunk in until_given_up(receive(file, count)):
                    _write(fd, chunk)
                    digest.add(chunk)
            except BaseException as error:
                if not keep:
                    _remove(path, fd)
                if isinstance(error, OSError):
                    raise _interrupted(error, digest.count) from error
                raise
            finally:
                os.close(fd)
        return digest.result()

    @command(
        access="file-read",
        blocking=True,
        changes=True,
        timed=False,
        verdict=_may_read,
        like=("guest-file-open", "guest-file-read"),
    )
    def qga_file_checksum(
        self, path: str, offset: int = 0, count: Optional[int] = None, *, caller: Caller
    ) -> QgaTransfer:
        """Compute the checksum (SHA-256) of a file or of a part of it.

        path: full path of a regular file.
        offset: where to start in the file.
        count: maximum number of bytes, by default all up to the end.
        Returns the number of bytes, and their checksum.
        """
        check_range(offset, count)
        digest = Digest()
        for chunk in read_range(caller, path, offset, count):
            digest.add(chunk)
        return digest.result()


class Digest:
    """Counts bytes and computes their checksum."""

    def __init__(self) -> None:
        from hashlib import sha256

        self.count = 0
        self._hash = sha256()

    def add(self, chunk: bytes | memoryview) -> None:
        self.count += len(chunk)
        self._hash.update(chunk)

    def result(self) -> QgaTransfer:
        return {"count": self.count, "sha256": self._hash.hexdigest()}


def check_range(offset: int, count: int | None) -> None:
    """Raise QgaError for negative numbers."""
    for name, value in (("offset", offset), ("count", count)):
        if value is not None and value < 0:
            raise QgaError(f"value '{value}' is invalid for argument {name}")


def read_range(caller: Caller, path: str, offset: int, count: int | None) -> Iterator[bytes]:
    """Read a part of a regular file, up to its current end. Raises QgaError."""
    try:
        fd = _open_regular(caller.policy, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        size = _size_of(fd)
        end = MAX_WITHOUT_SIZE + 1 if size == 0 else size
        rest = end - offset if count is None else min(end - offset, count)
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        while rest > 0:
            stop_if_given_up()
            chunk = os.read(fd, min(_CHUNK, rest))
            if not chunk:
                return
            rest -= len(chunk)
            yield chunk
        if size == 0 and offset <= MAX_WITHOUT_SIZE < os.lseek(fd, 0, os.SEEK_CUR):
            raise OSError(EFBIG, os.strerror(EFBIG))
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)


def _open_regular(policy: Policy, path: str) -> int:
    """Open a regular file for reading. Raises QgaError or OSError, without opening any other.

    Its owner may put a link to a device there, which only root may open. To open one can have
    effects, as for a watchdog or a tape.
    """
    place = open_file(policy, path, "r", os.O_PATH)
    try:
        _size_of(place)
        return os.open(f"/proc/self/fd/{place}", _TO_READ)
    finally:
        os.close(place)


def _unreadable(path: str, error: OSError) -> QgaError:
    return QgaError(f"failed to read file '{path}': {error.strerror}")


def _size_of(fd: int) -> int:
    """In bytes. Raises OSError for other than regular files, since devices may be endless."""
    status = os.fstat(fd)
    if S_ISDIR(status.st_mode):
        raise OSError(EISDIR, os.strerror(EISDIR))
    if not S_ISREG(status.st_mode):
        raise OSError(EINVAL, "not a regular file")
    return status.st_size


def receive(port: PortFile, count: int) -> Iterator[memoryview]:
    """Receive exactly `count` bytes. If the host disconnects before that, raises BrokenPipeError
    after yielding the bytes received so far."""
    buffer = memoryview(bytearray(min(_CHUNK, count)))
    while count:
        wanted = buffer[: min(_CHUNK, count)]
        filled = _fill(port, wanted)
        yield wanted[:filled]
        count -= filled
        if filled < len(wanted):
            raise BrokenPipeError(EPIPE, f"the host disconnected from the port '{port.port.name}'")


def _fill(port: PortFile, buffer: memoryview) -> int:
    filled = 0
    try:
        while filled < len(buffer):
            count = port.readinto(buffer[filled:])
            if not count:
                break
            filled += count
    except OSError:  # unplugged
        pass
    return filled


def _write(fd: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(fd, chunk) :]


def _remove(path: str, fd: int) -> None:
    """Remove the regular file `fd` from its directory, if it is still the one at `path`.

    What cannot be removed stays: the error that ended the transfer is the one that counts.
    """
    if not S_ISREG(os.fstat(fd).st_mode):
        return
    folder, name = os.path.split(c_string(path))
    try:
        # By its directory: another user may put a link to a third place into the path at any time.
        parent = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return
    try:
        if os.path.samestat(os.fstat(fd), os.lstat(name, dir_fd=parent)):
            os.unlink(name, dir_fd=parent)
    except OSError:
        pass
    finally:
        os.close(parent)


def _interrupted(error: OSError, count: int) -> QgaError:
    return QgaError(f"interrupted after {counted(count, 'byte')}: {error.strerror}")


def _write_flags(offset: int) -> int:
    return _TO_WRITE if offset == 0 else _TO_WRITE & ~os.O_TRUNC


def _describe(port: Port) -> QgaPort:
    from qga.ports import ends

    open_ends = ends(port)
    described: QgaPort = {"name": port.name, "device": port.device, "busy": open_ends.guest}
    if open_ends.host is not None:
        described["host-connected"] = open_ends.host
    return described
