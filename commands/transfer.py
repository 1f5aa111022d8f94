"""Files to and from the host over a data port: raw bytes, none of them as base64.

The host connects to the port's socket before it asks, and knows by the count and the checksum of
the reply that it has everything, for a port has no end of file. One that disconnects before that
ends the transfer. The port is given back in any case.
"""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL, EISDIR, EPIPE
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any, Optional, TypedDict

from qga import (
    Caller,
    CommandGroup,
    NotRequired,
    QgaError,
    command,
    stop_if_given_up,
    until_given_up,
)
from qga.wording import counted

from .files import open_file, open_flags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict
    from qga.ports import Port, PortFile

MAX_WITHOUT_SIZE = 48 * 1024 * 1024
"""Bytes that are read of a file of the kernel, which does not say how many it has."""

_CHUNK = 256 * 1024  # bytes

_TO_READ = open_flags("r")
_TO_WRITE = open_flags("w")

QgaPort = TypedDict(
    "QgaPort",
    {"name": str, "device": str, "busy": bool, "host-connected": NotRequired[bool]},
)


class QgaTransfer(TypedDict):
    count: int
    sha256: str


def _may_read(policy: Policy, given: dict[str, Any]) -> Verdict:
    return policy.judge_file(given["path"], _TO_READ)


def _may_write(policy: Policy, given: dict[str, Any]) -> Verdict:
    return policy.judge_file(given["path"], _write_flags(given.get("offset", 0)))


class Transfer(CommandGroup):
    """Data ports, and files over them."""

    @command(access="audit", blocking=True)
    def qga_get_ports(self) -> list[QgaPort]:
        """The virtio-serial ports of this guest, the agent's own included.

        `busy` says that a program of the guest has it open, `host-connected` (where that can be
        told) that one of the host has.
        """
        from qga.ports import list_ports

        return [_describe(port) for port in list_ports()]

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
        """Send a file's bytes, raw, to the host over a data port.

        path: full path of the file, which must be a regular one.
        port: a data port, by its name, that the host is connected to.
        offset: where in the file to begin.
        count: how many bytes to send at most; by default all up to its end.
        Returns, when all are written, how many there were, and their checksum.
        """
        from ._ports import connected_port

        check_range(offset, count)
        with connected_port(port) as file:
            digest = Digest()
            for chunk in read_range(caller, path, offset, count):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _broken_off(error, digest.count) from error
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
        self, path: str, port: str, count: int, offset: int = 0, *, caller: Caller
    ) -> QgaTransfer:
        """Write bytes that the host sends, raw, over a data port into a file.

        path: full path of the file. A new one gets mode 0644 less the agent's umask.
        port: a data port, by its name, that the host is connected to.
        count: how many bytes to take, just so many.
        offset: where in the file they go; at 0 the file is emptied first, elsewhere it must
            be there.
        Returns how many they were, and their checksum. What had come before an error is kept.
        """
        from ._ports import connected_port

        check_range(offset, count)
        with connected_port(port) as file:
            fd = open_file(caller.policy, path, "w" if not offset else "r+", _write_flags(offset))
            digest = Digest()
            try:
                if offset:
                    os.lseek(fd, offset, os.SEEK_SET)
                for chunk in until_given_up(receive(file, count)):
                    _write(fd, chunk)
                    digest.add(chunk)
            except OSError as error:
                raise _broken_off(error, digest.count) from error
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
        """The checksum (SHA-256) of a file, or of a part of it.

        path: full path of the file, which must be a regular one.
        offset: where in the file to begin.
        count: how many bytes at most; by default all up to its end.
        Returns how many bytes there were, and their checksum.
        """
        check_range(offset, count)
        digest = Digest()
        for chunk in read_range(caller, path, offset, count):
            digest.add(chunk)
        return digest.result()


class Digest:
    """Counts bytes and makes their checksum."""

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
    """Raise QgaError for what cannot be."""
    for name, value in (("offset", offset), ("count", count)):
        if value is not None and value < 0:
            raise QgaError(f"value '{value}' is invalid for argument {name}")


def read_range(caller: Caller, path: str, offset: int, count: int | None) -> Iterator[bytes]:
    """The bytes of a part of a regular file, as far as it goes now. Raises QgaError."""
    fd = open_file(caller.policy, path, "r", _TO_READ)
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
        raise QgaError(f"failed to read file '{path}': {error.strerror}") from error
    finally:
        os.close(fd)


def _size_of(fd: int) -> int:
    """In bytes. Raises OSError for what has none, such as a device, which may be endless."""
    status = os.fstat(fd)
    if S_ISDIR(status.st_mode):
        raise OSError(EISDIR, os.strerror(EISDIR))
    if not S_ISREG(status.st_mode):
        raise OSError(EINVAL, "it is not a regular file")
    return status.st_size


def receive(port: PortFile, count: int) -> Iterator[memoryview]:
    """Just so many bytes from a port. Raises BrokenPipeError after those that came before the
    host disconnected."""
    buffer = memoryview(bytearray(min(_CHUNK, count)))
    while count:
        wanted = buffer[: min(_CHUNK, count)]
        filled = _fill(port, wanted)
        yield wanted[:filled]
        count -= filled
        if filled < len(wanted):
            raise BrokenPipeError(EPIPE, f"the host has left the port '{port.port.name}'")


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


def _broken_off(error: OSError, count: int) -> QgaError:
    return QgaError(f"broken off after {counted(count, 'byte')}: {error.strerror}")


def _write_flags(offset: int) -> int:
    return _TO_WRITE if offset == 0 else _TO_WRITE & ~os.O_TRUNC


def _describe(port: Port) -> QgaPort:
    from qga.ports import ends

    open_ends = ends(port)
    described: QgaPort = {"name": port.name, "device": port.device, "busy": open_ends.guest}
    if open_ends.host is not None:
        described["host-connected"] = open_ends.host
    return described
