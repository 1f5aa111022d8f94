"""Files of the guest, as a whole or by handle."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Literal, NoReturn

from qga.client.connection import Connection, UnderWay
from qga.client.conversion import converted, encode_base64, member
from qga.client.errors import AgentError, AgentTimeout, CopyError, ProtocolError
from qga.client.results import FileChunk, FilePosition
from qga.client.waits import undisturbed
from qga.wording import counted

# Bytes of a file in one request. Larger requests take more memory and are not faster.
CHUNK = 1024 * 1024

# Bytes of a file that is read into memory: a guest may have files that never end.
LIMIT = 64 * 1024 * 1024

# The lowest acceptable speed of a file in bytes per second, and its total delay in seconds.
LEAST_PACE, SLACK = 256, 300.0


class Files(Connection):
    def read_file(self, path: str, *, chunk: int = CHUNK, limit: int = LIMIT) -> bytes:
        """Read a file of the guest, `chunk` bytes at a time.

        Raises CopyError if it has more than `limit` bytes or never ends, and AgentTimeout if the
        guest is much too slow.
        """
        content, pace = bytearray(), Pace(self.address, "guest-file-read")
        with self.opened(path, "r") as handle, closing(self.file_read_all(handle, chunk)) as pieces:
            for data in pieces:
                pace.moved(len(data))
                content += data
                if len(content) > limit:
                    reason = f"{path} has more than {counted(limit, 'byte')}, or does not end"
                    raise CopyError(reason, address=self.address)
            return bytes(content)

    def write_file(self, path: str, data: bytes, *, chunk: int = CHUNK) -> None:
        """Create or overwrite a file of the guest, sending `chunk` bytes at a time."""
        data = memoryview(data).tobytes()  # a wrong type must fail before the file is truncated
        with self.opened(path, "w") as handle:
            self.file_write_all(handle, data, chunk)
            self.file_flush(handle)

    def file_read_all(self, handle: int, chunk: int = CHUNK) -> Generator[bytes, None, None]:
        """Yield the content from the current position on, at most `chunk` bytes at a time.

        Further pieces are requested in advance, so the position is undefined if the generator is
        closed before its end.
        """
        chunk = self._readable(chunk)
        with UnderWay(self, "guest-file-read") as under_way:
            eof = False
            while not eof:
                while under_way.takes_more:
                    under_way.submit(handle=handle, count=chunk)
                piece = self._piece(under_way.collect(), chunk)
                under_way.went_well(len(piece.data) == chunk)
                eof = piece.eof or not piece.data
                yield piece.data

    def file_write_all(
        self,
        handle: int,
        data: bytes | Iterable[bytes],
        chunk: int = CHUNK,
        *,
        moved: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Write all of `data`, or of its pieces, at the current position.

        `moved` is called with the number of bytes of each request that was carried out.
        """
        chunk, pace = min(chunk, self.max_data()), Pace(self.address, "guest-file-write")
        unwritten: deque[bytes] = deque()

        def take_reply() -> None:
            count, piece = self._count(under_way.collect()), unwritten.popleft()
            if not 0 < count <= len(piece):
                self._took(f"{count} of {counted(len(piece), 'byte')}")
            under_way.went_well(count == chunk)
            pace.moved(count)
            moved(count)
            if count < len(piece):
                if under_way:
                    self._took(f"{counted(count, 'byte')} of a piece, and then the next piece")
                submit(piece[count:])

        def submit(piece: bytes) -> None:
            under_way.submit(handle=handle, buf_b64=encode_base64(piece))
            unwritten.append(piece)

        with UnderWay(self, "guest-file-write") as under_way:
            for piece in cut(data, chunk):
                while not under_way.takes_more:
                    take_reply()
                submit(piece)
            while under_way:
                take_reply()

    def file_open(self, path: str, mode: str = "r") -> int:
        """Open a file as fopen(3) does; returns a handle, which outlives the connection."""
        return self._ask("guest-file-open", int, path=path, mode=mode)

    def file_close(self, handle: int) -> None:
        self.call("guest-file-close", handle=handle)

    def file_read(self, handle: int, count: int = CHUNK) -> FileChunk:
        """Read at most `count` bytes (48 MiB; through libvirt 3 MiB) at the current position."""
        count = self._readable(count)
        return self._piece(self.call("guest-file-read", handle=handle, count=count), count)

    def file_write(self, handle: int, data: bytes) -> int:
        """Write at the current position; returns the number of bytes written, maybe not all."""
        buf_b64 = encode_base64(data)
        return self._count(self.call("guest-file-write", handle=handle, buf_b64=buf_b64))

    def file_seek(
        self, handle: int, offset: int, whence: Literal["set", "cur", "end"] = "set"
    ) -> FilePosition:
        """Set the position as lseek(2) does."""
        return self._ask(
            "guest-file-seek", FilePosition, handle=handle, offset=offset, whence=whence
        )

    def file_flush(self, handle: int) -> None:
        """Flush written data to the guest's operating system."""
        self.call("guest-file-flush", handle=handle)

    def _readable(self, count: int) -> int:
        most = self.max_output()
        return count if most is None else min(count, most)

    def _piece(self, reply: Any, count: int) -> FileChunk:
        """Check a reply to guest-file-read of `count` bytes."""
        command = "guest-file-read"
        with self._telling(command):
            piece = converted(FileChunk, reply)
            if len(piece.data) > count:
                reason = f"returned {counted(len(piece.data), 'byte')} instead of {count}"
                raise ProtocolError(reason)
            return piece

    def _count(self, reply: Any) -> int:
        """Check a reply to guest-file-write."""
        with self._telling("guest-file-write"):
            return member(int, "count", reply)

    def _took(self, what: str) -> NoReturn:
        raise ProtocolError(f"took {what}", address=self.address, command="guest-file-write")

    @contextmanager
    def opened(self, path: str, mode: str = "r") -> Iterator[int]:
        """A context with an open file; yields the handle."""
        handle = self.file_open(path, mode)
        try:
            yield handle
        except BaseException:
            with suppress(AgentError), undisturbed():
                self.file_close(handle)
            raise
        with undisturbed():
            self.file_close(handle)


def cut(data: bytes | Iterable[bytes], size: int) -> Iterator[bytes]:
    """Pieces of at most `size` bytes."""
    for each in (data,) if isinstance(data, bytes) else data:
        for at in range(0, len(each), size):
            yield each[at : at + size]


class Pace:
    """Decides whether a guest transfers the bytes of a file fast enough to wait for them."""

    def __init__(self, address: str, command: str, slack: float | None = None) -> None:
        self._address = address
        self._command = command
        self._slack = SLACK if slack is None else slack
        self._late = 0.0
        self.resume()

    def resume(self) -> None:
        """Start counting from now."""
        self._since = time.monotonic()

    def moved(self, count: int) -> None:
        """Raise AgentTimeout if the guest has transferred too little for too long."""
        now = time.monotonic()
        self._late = max(0.0, self._late + now - self._since - count / LEAST_PACE)
        self._since = now
        if self._late > self._slack:
            reason = f"it transfers less than {LEAST_PACE} bytes per second"
            raise AgentTimeout(self._address, self._command, self._slack, reason)
