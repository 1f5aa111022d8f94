"""Open files in the guest, by handle.

Handles outlive the connection that opened them, and a restarted agent never reuses them. Unused
ones are closed after UNUSED seconds, and not before. They are valid only on the channel that opened
them, because another channel may not be allowed to open the file. Nothing is buffered: what
guest-file-write reports as written is written.
"""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EAGAIN, EINVAL
from stat import S_ISREG
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

from qga import Base64, Caller, CommandGroup, Payload, QgaError, command, stop_if_given_up
from qga.policy.quota import Quota
from qga.records import TypedDict
from qga.task import Lock
from qga.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection

    from qga.loop import Timer
    from qga.plugin.services import Services
    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict

MAX_READ = 48 * 1024 * 1024
"""Bytes per guest-file-read (QEMU's limit since CVE-2018-12617)."""

MAX_HANDLES = 1024
"""Files that a channel may have open by default; as many as QEMU's agent can open with the usual
RLIMIT_NOFILE."""

UNUSED = 3600.0
"""Seconds after which a handle that nobody has used is closed, when it is in the way of a new one
or its channel has no client. Proxmox VE leaves files open when a read fails; libvirt uses handles
that were opened by an earlier connection."""

MAX_AT_ONCE = 1024 * 1024
"""Bytes to read on the loop if they are in memory. Copying them takes about 0.1 ms."""

_CLOSED = -1  # for a descriptor
# A flag of preadv2(2), which Python may lack.
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0) if hasattr(os, "preadv") else 0
_POSITION = -1  # of preadv2(2): the current one

_ACCESS = {"r": os.O_RDONLY, "w": os.O_WRONLY | os.O_TRUNC, "a": os.O_WRONLY | os.O_APPEND}

GuestFileRead = TypedDict("GuestFileRead", {"count": int, "buf-b64": Payload, "eof": bool})


class GuestFileWrite(TypedDict):
    count: int
    eof: bool


class GuestFileSeek(TypedDict):
    position: int
    eof: bool


QGASeek = Literal["set", "cur", "end"]
GuestFileWhence = Union[int, QGASeek]

_WHENCE: dict[int | str, int] = {
    "set": os.SEEK_SET,
    "cur": os.SEEK_CUR,
    "end": os.SEEK_END,
    **{code: code for code in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)},
}


class OpenFile:
    """A descriptor, and a lock so that it is not closed during a read or write.

    cached: whether it is a regular file, whose pages the kernel may have in memory.
    used: when a request last used it.
    """

    __slots__ = ("cached", "channel", "fd", "lock", "used")

    def __init__(self, fd: int, lock: Lock, channel: str) -> None:
        self.fd = fd
        self.lock = lock
        self.channel = channel
        self.used = monotonic()
        self.cached = bool(_NO_WAIT) and S_ISREG(os.fstat(fd).st_mode)


def _may_open(policy: Policy, given: dict[str, Any]) -> Verdict:
    return policy.judge_file(given["path"], open_flags(given.get("mode", "r")))


class Files(CommandGroup):
    """Reading and writing files."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._files: dict[int, OpenFile] = {}
        self._quota = Quota()
        # Only after a client has left files open: a pending timer costs each request some
        # microseconds, in epoll_wait(2) most of all.
        self._sweep_timer: Timer | None = None

    def on_client_left(self, caller: Caller) -> None:
        self._sweep_later()

    def on_unheard(self, command: str) -> None:
        if command == "guest-file-open":  # its client left before there was a file
            self._sweep_later()

    @command(access="file-read", blocking=True, changes=True, verdict=_may_open)
    def guest_file_open(self, path: str, mode: str = "r", *, caller: Caller) -> int:
        """Open a file and return its handle.

        path: full path of the file.
        mode: as for fopen(3): r, w or a, optionally with + and b.
        A new file gets mode 0644 less the agent's umask. A FIFO opens at once, without waiting for
        the other end. Writing requires the profile file-write, and does not follow symbolic links
        unless the configuration allows it.
        """
        flags = open_flags(mode)
        self._reserve(caller)
        try:
            fd = open_file(caller.policy, path, mode, flags)
            try:
                file = OpenFile(fd, Lock(), caller.channel)
                handle = self.agent.state.next_handle()
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            self._release(caller.channel)
            raise
        self._files[handle] = file
        return handle

    @command(access="file-read", blocking=True)
    def guest_file_close(self, handle: int, *, caller: Caller) -> None:
        """Close a file.

        handle: as returned by guest-file-open.
        """
        file = self._file(handle, caller)
        with file.lock:
            _check_open(handle, file)  # another request may have closed it in the meantime
            try:
                self._close(handle, file)
            except OSError as error:
                raise QgaError(f"failed to close handle: {error.strerror}") from error

    @command(access="file-read", blocking=True)
    def guest_file_read(
        self, handle: int, count: int = 4096, *, caller: Caller, may_wait: bool
    ) -> GuestFileRead:
        """Read from the current position.

        handle: as returned by guest-file-open.
        count: maximum number of bytes, up to 48 MiB.
        Returns the bytes, their number, and `eof`: whether there were fewer than `count`.
        """
        file = self._file(handle, caller)
        if not 0 <= count <= MAX_READ:
            raise QgaError(f"value '{count}' is invalid for argument count")
        data: bytes | bytearray
        if not may_wait:
            data, eof = read_cached(file, count)
            return {"count": len(data), "buf-b64": Payload(data), "eof": eof}
        with file.lock:
            _check_open(handle, file)
            try:
                data, eof = read_up_to(file.fd, count)
            except OSError as error:
                raise QgaError(f"failed to read file: {error.strerror}") from error
        return {"count": len(data), "buf-b64": Payload(data), "eof": eof}

    @command(access="file-write", blocking=True, secret=("buf-b64",), continues="handle")
    def guest_file_write(
        self, handle: int, buf_b64: Base64, count: Optional[int] = None, *, caller: Caller
    ) -> GuestFileWrite:
        """Write at the current position.

        handle: as returned by guest-file-open.
        buf-b64: the bytes, base64-encoded.
        count: how many of them to write, by default all.
        Returns the number of bytes written.
        """
        file = self._file(handle, caller)
        data = buf_b64.decode()
        if count is not None:
            if not 0 <= count <= len(data):
                raise QgaError(f"value '{count}' is invalid for argument count")
            data = data[:count]
        with file.lock:
            _check_open(handle, file)
            try:
                written = write_all(file.fd, data)
            except OSError as error:
                raise QgaError(f"failed to write to file: {error.strerror}") from error
        return {"count": written, "eof": False}

    @command(access="file-read", blocking=True)
    def guest_file_seek(
        self,
        handle: int,
        offset: int,
        whence: GuestFileWhence,
        *,
        caller: Caller,
        may_wait: bool,
    ) -> GuestFileSeek:
        """Set the position, like lseek(2).

        handle: as returned by guest-file-open.
        offset: in bytes, relative to `whence`.
        whence: `set` or 0 for the beginning, `cur` or 1 for the current position, `end` or 2 for
            the end of the file.
        Returns the new position.
        """
        file = self._file(handle, caller)
        if whence not in _WHENCE:
            raise QgaError(f"invalid whence code {whence}")
        # A network filesystem asks its server for the end.
        if not may_wait and (not file.cached or _WHENCE[whence] == os.SEEK_END):
            raise BlockingIOError
        with file.lock if may_wait else AtOnce(file.lock):
            _check_open(handle, file)
            try:
                position = seek(file.fd, offset, _WHENCE[whence])
            except OSError as error:
                raise QgaError(f"failed to seek file: {error.strerror}") from error
        return {"position": position, "eof": False}

    @command(access="file-read")
    def guest_file_flush(self, handle: int, *, caller: Caller) -> None:
        """Write buffered data to the file; does nothing, since nothing is buffered.

        handle: as returned by guest-file-open.
        """
        self._file(handle, caller)

    def _file(self, handle: int, caller: Caller) -> OpenFile:
        file = self._files.get(handle)
        if file is None or file.channel != caller.channel:
            raise _not_found(handle)
        file.used = monotonic()
        return file

    def _reserve(self, caller: Caller) -> None:
        """Count a file. Raises QgaError if there are too many."""
        channel, limit = caller.channel, caller.policy.limits.limits_handles or MAX_HANDLES
        if not self._quota.take(channel, 1, limit):
            self._close_unused({channel})
            if not self._quota.take(channel, 1, limit):
                files = counted(limit, "file is", "files are")
                raise QgaError(f"{files} already open; close one first")
        try:
            self.agent.descriptors.take(channel, 1)
        except BaseException:
            self._quota.give(channel, 1)
            raise

    def _release(self, channel: str) -> None:
        self._quota.give(channel, 1)
        self.agent.descriptors.give(channel, 1)

    def _close(self, handle: int, file: OpenFile) -> None:
        """Close the file, whose lock is held. Raises OSError."""
        del self._files[handle]
        timer = self._sweep_timer
        if timer is not None and not self._files:
            self._sweep_timer = None
            timer.cancel()
        self._release(file.channel)
        fd, file.fd = file.fd, _CLOSED
        os.close(fd)

    def _close_unused(self, channels: Collection[str]) -> None:
        """Close files that were not used for UNUSED seconds. May wait."""
        for handle, file in list(self._files.items()):
            if file.channel not in channels or monotonic() - file.used < UNUSED:
                continue
            if file.lock.acquire(blocking=False):
                try:
                    if self._files.get(handle) is file:
                        self._close(handle, file)
                except OSError:  # there is no client to report it to
                    pass
                finally:
                    file.lock.release()

    def _sweep_later(self) -> None:
        if self._sweep_timer is None and self._files:
            self._sweep_timer = self.agent.loop.call_later(UNUSED, self._sweep)

    def _sweep(self) -> None:
        """Close unused files of channels without a client, and check the others again later."""
        self._sweep_timer = None
        left = self.agent.channels_without_client()
        if not any(file.channel in left for file in list(self._files.values())):
            return
        self._sweep_later()
        if self.agent.frozen:  # closing a file that was removed writes to the disk
            return
        with suppress(QgaError):  # all threads are busy: the next time
            self.agent.worker.submit(lambda: self._close_unused(left), lambda *_: None)


def _check_open(handle: int, file: OpenFile) -> None:
    """Raise QgaError if the file, whose lock is held, is closed."""
    if file.fd == _CLOSED:
        raise _not_found(handle)


def _not_found(handle: int) -> QgaError:
    return QgaError(f"handle '{handle}' has not been found")


def open_flags(mode: str) -> int:
    """Flags of open(2) for a mode of fopen(3)."""
    kind, plus, binary = mode[:1], "+" in mode[1:], "b" in mode[1:]
    if kind not in _ACCESS or len(mode) != 1 + plus + binary:
        raise QgaError(f"invalid file open mode '{mode}'")
    flags = _ACCESS[kind]
    if plus:
        flags = flags & ~os.O_ACCMODE | os.O_RDWR
    return flags | os.O_NONBLOCK | os.O_NOCTTY


def open_file(policy: Policy, path: str, mode: str, flags: int) -> int:
    """Open a file if the policy allows it. Raises QgaError."""
    try:
        return policy.open_file(path, flags)
    except OSError as error:
        raise QgaError(
            f"failed to open file '{path}' (mode: '{mode}'): {error.strerror}"
        ) from error


class AtOnce:
    """A context that holds a lock. Raises BlockingIOError if another thread holds it."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise BlockingIOError

    def __exit__(self, *_error: object) -> None:
        self._lock.release()


def seek(fd: int, offset: int, whence: int) -> int:
    """Like fseek(3), but only to positions below 2^63.

    /proc/PID/mem and /dev/mem accept more, which Python takes for an error without errno. lseek(2)
    cannot find the end of files in /proc, so their size is used.
    """
    if whence == os.SEEK_CUR and offset:
        whence, offset = os.SEEK_SET, os.lseek(fd, 0, os.SEEK_CUR) + offset
    elif whence == os.SEEK_END and S_ISREG((status := os.fstat(fd)).st_mode):
        whence, offset = os.SEEK_SET, status.st_size + offset
    if whence == os.SEEK_SET and not 0 <= offset < 2**63:
        os.lseek(fd, 0, os.SEEK_CUR)  # a pipe cannot seek at all
        raise OSError(EINVAL, os.strerror(EINVAL))
    return os.lseek(fd, offset, whence)


def read_cached(file: OpenFile, count: int) -> tuple[bytearray, bool]:
    """Like read_up_to, if the kernel has the data in memory.

    Raises BlockingIOError without having read anything if the read would have to wait for a disk, a
    server or another client of the same handle, or if copying would take long.
    """
    if not file.cached or count > MAX_AT_ONCE or not file.lock.acquire(blocking=False):
        raise BlockingIOError
    data = bytearray(count)
    size = 0
    try:
        with memoryview(data) as view:
            while size < count:
                read = os.preadv(file.fd, [view[size:]], _POSITION, _NO_WAIT)
                if not read:
                    break
                size += read
        if size < count and not _is_at_end(file.fd):
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
    except (OSError, NotImplementedError) as error:
        if size:
            os.lseek(file.fd, -size, os.SEEK_CUR)
        # Other errors: the filesystem, kernel or a seccomp filter does not support RWF_NOWAIT.
        file.cached = isinstance(error, BlockingIOError)
        raise BlockingIOError from None
    finally:
        file.lock.release()
    del data[size:]
    return data, size < count


def _is_at_end(fd: int) -> bool:
    """Whether a read that returned 0 with RWF_NOWAIT has met the end of the file.

    Linux 5.9 and 5.10 also return 0 if the data is not in memory.
    """
    return os.lseek(fd, 0, os.SEEK_CUR) >= os.fstat(fd).st_size


def read_up_to(fd: int, count: int) -> tuple[bytes, bool]:
    """Up to `count` bytes, and whether the end of the file came earlier."""
    pieces: list[bytes] = []
    while count:
        stop_if_given_up()
        try:
            piece = os.read(fd, count)
        except BlockingIOError:  # a FIFO or terminal without more data
            if pieces:
                break
            raise
        if not piece:
            return b"".join(pieces), True
        pieces.append(piece)
        count -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), False


def write_all(fd: int, data: bytes | bytearray) -> int:
    """Write `data`. Returns the number of bytes written, fewer if a FIFO or terminal is full."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            if len(rest) == len(data):
                raise
            break
    return len(data) - len(rest)
