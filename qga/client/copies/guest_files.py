"""Reading and writing the content of a guest's files, which any agent can do.

The content passes through guest-file-read and guest-file-write, or through a data port with
qga-file-send and qga-file-receive. Everything else that a copy needs depends on whether programs
can be run in the guest: see the subclasses `ShellFiles` and `PlainFiles`.

A guest that moves only a few bytes now and then is given up.

Every wait calls `tick`, which may raise an exception to abort the copy. The file and the port are
then closed. A pending request is always completed: whatever it opens would stay open otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from qga.client.agent import GuestAgent
from qga.client.commands.files import Pace
from qga.client.copies.port_files import receive_file, send_file
from qga.client.copies.trees import Chunks, Piece, Place
from qga.client.data_ports import DataPort, DataPorts
from qga.client.errors import CommandError, CommandNotFound

# Bytes of the smallest file for which opening a data port pays off.
WORTH_A_PORT = 512 * 1024

PORT_COMMANDS = {"qga-get-ports", "qga-file-send", "qga-file-receive"}

SINCE_KEEP = "qga-get-version"
"""A command that agents lack whose qga-file-receive has no `keep`: those of qga 0.1."""


class GuestFiles:
    """Files of a guest, as a side of a copy.

    ports: the data ports that may be used.
    """

    slack = math.inf
    """Seconds of delay of a slow file; unlimited for a FIFO or terminal. Copies set a limit."""

    label = ""

    @property
    def can_rename(self) -> bool:
        raise NotImplementedError

    def __init__(
        self,
        agent: GuestAgent,
        tick: Callable[[], None] = lambda: None,
        ports: DataPorts | None = None,
    ) -> None:
        self.agent = agent
        self.tick = tick
        self.port_used: str | None = None
        """The name of the data port that was used."""
        self._port: DataPort | None = None
        self._can_remove = False
        self._ports = ports

    def close(self) -> None:
        """Release the data port."""
        if self._port:
            self._port.close()
            self._port = None

    def enabled(self) -> set[str]:
        """The commands that the agent offers."""
        return {command.name for command in self.agent.info().commands if command.enabled}

    def chunks(self, place: Place, offset: int, size: int) -> Chunks:
        path = place.path
        port = self._port_for(size - offset)
        if port:
            yield from send_file(self.agent, port, path, offset, size - offset, self.tick)
            return
        with self._opened(path, "r", offset) as handle:
            pace = Pace(self.agent.address, "guest-file-read", self.slack)
            with closing(self.agent.file_read_all(handle)) as pieces:
                while True:
                    self.tick()
                    pace.resume()
                    data = next(pieces, None)
                    if data is None:
                        return
                    pace.moved(len(data))
                    yield data

    def write(
        self, place: Place, offset: int, size: int, chunks: Iterator[bytes], keep: bool = True
    ) -> None:
        port = self._port_for(size - offset)
        if port:
            path, keep = place.path, keep or not self._can_remove
            receive_file(self.agent, port, path, offset, size - offset, chunks, self.tick, keep)
            return
        # "r+" does not create the file: the temporary file may have become a link by now.
        with self._opened(place.path, "r+" if self.can_rename else "w", offset) as handle:
            self._write_all(handle, chunks)

    def _write_all(self, handle: int, chunks: Iterator[bytes]) -> int:
        """Write the chunks; returns the number of bytes."""
        size = 0

        def moved(count: int) -> None:
            nonlocal size
            size += count
            self.tick()

        self.agent.file_write_all(handle, chunks, moved=moved)
        self.agent.file_flush(handle)
        return size

    def _port_for(self, size: int) -> DataPort | None:
        """The data port for so many bytes; None if it does not pay off, or no port is free."""
        if size < WORTH_A_PORT:
            return None
        if self._port is None or self._port.closed:
            self._port = self._open_port()
        if self._port is not None:
            self.port_used = self._port.name
        return self._port

    def _open_port(self) -> DataPort | None:
        if self._ports is None:
            return None
        enabled = self.enabled()
        usable = enabled >= PORT_COMMANDS
        self._can_remove = SINCE_KEEP in enabled
        port = self._ports.open_free(self.agent) if usable else None
        if port is None:
            self._ports = None  # ask for a port only once
        return port

    @contextmanager
    def _opened(self, path: str, mode: str, offset: int) -> Iterator[int]:
        with self.agent.opened(path, mode) as handle:
            if offset:
                self.agent.file_seek(handle, offset)
            yield handle

    def _checksum(self, piece: Piece) -> str:
        """The agent's checksum. Raises CommandNotFound if the agent has no command for it."""
        self.tick()
        try:
            return self.agent.file_checksum(piece.place.path, piece.offset, piece.size).sha256
        except CommandNotFound:
            raise
        except CommandError:
            return ""
