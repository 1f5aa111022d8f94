"""Files of the guest: whole, or by handle as the commands have them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from qga.client.connection import Connection
from qga.client.errors import AgentError, AgentTimeout, CopyError, ProtocolError
from qga.client.results import FileChunk, FilePosition
from qga.client.shapes import encode_base64
from qga.wording import counted

# Bytes of a file in one request: larger ones cost memory and gain nothing.
CHUNK = 1024 * 1024

# Bytes of a file that is held in memory as a whole: a guest may have files that never end.
LIMIT = 64 * 1024 * 1024

# Bytes a second that a file must be read or written with, and seconds that it may be late.
LEAST_PACE, SLACK = 256, 300.0


class Files(Connection):
    def read_file(self, path: str, *, chunk: int = CHUNK, limit: int = LIMIT) -> bytes:
        """The content of a file of the guest, fetched `chunk` bytes at a time.

        Raises CopyError if it has more than `limit` bytes or never ends, and AgentTimeout if the
        guest is much too slow.
        """
        content, pace = bytearray(), Pace(self.address, "guest-file-read")
        with self.opened(path, "r") as handle:
            while True:
                piece = self.file_read(handle, chunk)
                pace.moved(len(piece.data))
                content += piece.data
                if len(content) > limit:
                    reason = f"{path} has more than {counted(limit, 'byte')}, or does not end"
                    raise CopyError(reason, address=self.address)
                if piece.eof or not piece.data:
                    return bytes(content)

    def write_file(self, path: str, data: bytes, *, chunk: int = CHUNK) -> None:
        """Create or overwrite a file of the guest, sending `chunk` bytes at a time."""
        data = memoryview(data).tobytes()  # a wrong type must fail before the file is truncated
        with self.opened(path, "w") as handle:
            self.file_write_all(handle, data, chunk)
            self.file_flush(handle)

    def file_write_all(
        self,
        handle: int,
        data: bytes,
        chunk: int = CHUNK,
        *,
        moved: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Write all of `data` at the current position. `moved` is called after each request."""
        chunk, pace = min(chunk, self.max_data()), Pace(self.address, "guest-file-write")
        position = 0
        while position < len(data):
            piece = data[position : position + chunk]
            count = self.file_write(handle, piece)
            if not 0 < count <= len(piece):
                raise ProtocolError(
                    f"took {count} of {counted(len(piece), 'byte')}",
                    address=self.address,
                    command="guest-file-write",
                )
            position += count
            pace.moved(count)
            moved(count)

    def file_open(self, path: str, mode: str = "r") -> int:
        """Open a file as fopen(3) does; its handle, which outlives the connection."""
        return self._ask("guest-file-open", int, path=path, mode=mode)

    def file_close(self, handle: int) -> None:
        self.call("guest-file-close", handle=handle)

    def file_read(self, handle: int, count: int = CHUNK) -> FileChunk:
        """At most `count` bytes (48 MiB; by libvirt 3 MiB) from the current position."""
        command = "guest-file-read"
        most = self.max_output()
        count = count if most is None else min(count, most)
        piece = self._ask(command, FileChunk, handle=handle, count=count)
        if len(piece.data) > count:
            reason = f"gave {counted(len(piece.data), 'byte')}, but was asked for {count}"
            raise ProtocolError(reason, address=self.address, command=command)
        return piece

    def file_write(self, handle: int, data: bytes) -> int:
        """Write at the current position; how many bytes were taken, maybe not all."""
        buf_b64 = encode_base64(data)
        return self._ask("guest-file-write", int, "count", handle=handle, buf_b64=buf_b64)

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

    @contextmanager
    def opened(self, path: str, mode: str = "r") -> Iterator[int]:
        """The handle of a file, which is closed when the context ends."""
        handle = self.file_open(path, mode)
        try:
            yield handle
        except BaseException:
            with suppress(AgentError):
                self.file_close(handle)
            raise
        self.file_close(handle)


class Pace:
    """Decides whether a guest transfers the bytes of a file fast enough to wait for them."""

    def __init__(self, address: str, command: str, slack: float | None = None) -> None:
        self._address = address
        self._command = command
        self._slack = SLACK if slack is None else slack
        self._late = 0.0
        self.resume()

    def resume(self) -> None:
        """The guest has been asked only now."""
        self._since = time.monotonic()

    def moved(self, count: int) -> None:
        """Raise AgentTimeout if the guest has transferred too little for too long."""
        now = time.monotonic()
        self._late = max(0.0, self._late + now - self._since - count / LEAST_PACE)
        self._since = now
        if self._late > self._slack:
            reason = f"less than {LEAST_PACE} bytes a second have moved"
            raise AgentTimeout(self._address, self._command, self._slack, reason)
