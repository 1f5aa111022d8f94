"""The guest's side of a copy.

Bytes go by guest-file-read and -write, which every agent has, or raw through a data port with
qga-file-send and -receive. What these commands have no words for (listing, renaming, checksums)
is done by /bin/sh in the guest, with POSIX's tools and stat(1), readlink(1), sha256sum(1) as
coreutils and busybox have them. Names are arguments of the scripts and never parts of them.

Every wait calls `tick`, which may raise to give up: then the script is killed, the file closed
and the port hung up before the error goes on. A request itself is never broken off, for what
it has opened would stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from qga.client.agent import GuestAgent
from qga.client.commands.exec import DELAY_GROWTH, FIRST_DELAY
from qga.client.copies.port_files import receive_file, send_file
from qga.client.copies.trees import Chunks, Entry, Finished, Piece, checked
from qga.client.data_ports import DataPort, DataPorts
from qga.client.errors import CommandError, CommandNotFound, CopyError, ProtocolError
from qga.client.programs import PlainProgram
from qga.client.results import ExecResult

T = TypeVar("T")

# Bytes of a file from which on a data port is worth its opening.
WORTH_A_PORT = 512 * 1024

PORT_COMMANDS = {"qga-get-ports", "qga-file-send", "qga-file-receive"}

# Seconds between two looks at a script, at most.
LONGEST_DELAY = 0.1

# Arguments of one script: 64 paths of 4 KiB and their company are far below ARG_MAX.
BATCH = 64

FIND = """
if [ -e "$1" ]; then stat -L -c "%f %s" -- "$1"; fi
"""

# For each lot of names: their number, a line of mode and size for each, the names with NULs. What
# is gone meanwhile is left out.
LIST = r"""
cd -- "$1" && find . -mindepth 1 -exec sh -c '
if lines=$(stat -c "%f %s" -- "$@" 2>/dev/null); then
    printf "%s\n%s\n" "$#" "$lines"
    printf "%s\0" "$@"
else
    for name; do
        line=$(stat -c "%f %s" -- "$name") && printf "1\n%s\n%s\0" "$line" "$name"
    done
fi
' sh {} +
"""

LINKS = r"""
cd -- "$1" && shift && for link; do readlink -n -- "$link"; printf "\0"; done
"""

CHECKSUMS = """
while [ $# -gt 0 ]; do
    if [ -r "$1" ]; then
        tail -c "+$(($2 + 1))" -- "$1" | head -c "$3" | sha256sum
    else
        echo
    fi
    shift 3
done
"""

MAKE_FOLDERS = """
for folder; do [ -d "$folder" ] || mkdir -- "$folder" || exit 1; done
"""

FINISH = """
while [ $# -gt 0 ]; do
    if [ -d "$3" ]; then
        echo "$3: is a folder" >&2
        exit 1
    fi
    chmod -- "$1" "$2" && mv -f -- "$2" "$3" || exit 1
    shift 3
done
"""

MAKE_LINKS = """
while [ $# -gt 0 ]; do
    if [ -L "$2" ]; then rm -f -- "$2"; fi
    if [ -e "$2" ]; then
        echo "$2: is in the way of a symbolic link of this name" >&2
        exit 1
    fi
    ln -s -- "$1" "$2" || exit 1
    shift 2
done
"""

SET_PERMISSIONS = """
while [ $# -gt 0 ]; do
    chmod -- "$1" "$2" || exit 1
    shift 2
done
"""

REMOVE = """
rm -f -- "$@"
"""


class GuestFiles:
    """Files of a guest, as a side of a copy. `ports` are the data ports that may be used."""

    def __init__(
        self,
        agent: GuestAgent,
        tick: Callable[[], None] = lambda: None,
        ports: DataPorts | None = None,
    ) -> None:
        self.agent = agent
        self.tick = tick
        self.port_used: str | None = None
        """The name of the data port that bytes have passed through."""
        self._port: DataPort | None = None
        self._ports = ports

    def close(self) -> None:
        """Give the data port back."""
        if self._port:
            self._port.close()
            self._port = None

    def find(self, path: str) -> Entry | None:
        line = self._script(FIND, [path]).decode()
        return entry("", line) if line else None

    def below(self, path: str) -> tuple[list[Entry], list[str]]:
        result = self._run(LIST, [path])
        try:
            entries = list(listed(result.stdout))
        except ValueError:
            raise ProtocolError(f"the guest's list of {path} makes no sense") from None
        links = [found.name for found in entries if found.is_link]
        targets: list[str] = []
        for lot in lots(links, BATCH):
            answer = self._script(LINKS, [path, *lot])
            targets += [decoded(target) for target in answer.split(b"\0")[:-1]]
        if len(targets) != len(links):
            raise ProtocolError("the guest's symbolic links have changed while they were listed")
        leads = dict(zip(links, targets))
        found = [each._replace(target=leads.get(each.name, "")) for each in entries]
        return checked(found), decoded(result.stderr).splitlines()

    def chunks(self, path: str, offset: int, size: int) -> Chunks:
        port = self._port_for(size - offset)
        if port:
            yield from send_file(self.agent, port, path, offset, size - offset, self.tick)
            return
        with self._opened(path, "r", offset) as handle:
            eof = False
            while not eof:
                self.tick()
                data, eof = self.agent.file_read(handle)
                eof = eof or not data
                yield data

    def write(self, path: str, offset: int, size: int, chunks: Iterator[bytes]) -> None:
        port = self._port_for(size - offset)
        if port:
            receive_file(self.agent, port, path, offset, size - offset, chunks, self.tick)
            return
        with self._opened(path, "r+" if offset else "w", offset) as handle:
            for chunk in chunks:
                self.agent.file_write_all(handle, chunk)
            self.agent.file_flush(handle)

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        try:
            return [self._checksum(piece) for piece in pieces]
        except CommandNotFound:
            return self._checksums_by_shell(pieces)

    def make_folder(self, path: str) -> None:
        self._script(MAKE_FOLDERS, [path])

    def make_folders(self, paths: Sequence[str]) -> None:
        for lot in lots(paths, BATCH):
            self._script(MAKE_FOLDERS, lot)

    def finish(self, files: Sequence[Finished]) -> None:
        for lot in lots(files, BATCH):
            self._script(
                FINISH,
                [text for file in lot for text in (f"{file.permissions:o}", *file[1:])],
            )

    def make_links(self, links: Sequence[tuple[str, str]]) -> None:
        for lot in lots(links, BATCH):
            self._script(MAKE_LINKS, [text for link in lot for text in link])

    def set_permissions(self, folders: Sequence[tuple[int, str]]) -> None:
        for lot in lots(folders, BATCH):
            arguments = [text for mode, path in lot for text in (f"{mode:o}", path)]
            self._script(SET_PERMISSIONS, arguments)

    def remove(self, paths: Sequence[str]) -> None:
        for lot in lots(paths, BATCH):
            self._script(REMOVE, lot)

    def _port_for(self, size: int) -> DataPort | None:
        """The data port, for so many bytes; none if they are few, or there is none."""
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
        enabled = {command.name for command in self.agent.info().commands if command.enabled}
        port = self._ports.open_free(self.agent) if enabled >= PORT_COMMANDS else None
        if port is None:
            self._ports = None  # it is asked for once
        return port

    @contextmanager
    def _opened(self, path: str, mode: str, offset: int) -> Iterator[int]:
        with self.agent.opened(path, mode) as handle:
            if offset:
                self.agent.file_seek(handle, offset)
            yield handle

    def _checksum(self, piece: Piece) -> str:
        self.tick()
        try:
            return self.agent.file_checksum(piece.path, piece.offset, piece.size).sha256
        except CommandNotFound:
            raise
        except CommandError:
            return ""

    def _checksums_by_shell(self, pieces: Sequence[Piece]) -> list[str]:
        sums: list[str] = []
        for lot in lots(pieces, BATCH):
            arguments = [str(value) for piece in lot for value in piece]
            lines = self._script(CHECKSUMS, arguments).decode(errors="replace").splitlines()
            sums += [line.partition(" ")[0] for line in lines]
        return sums

    def _script(self, script: str, arguments: Sequence[str]) -> bytes:
        """The output of a script; CopyError if it fails."""
        result = self._run(script, arguments)
        if result.status:
            reason = decoded(result.stderr).strip() or f"/bin/sh ended with {result.status}"
            raise CopyError(reason, address=self.agent.address)
        return result.stdout

    def _run(self, script: str, arguments: Sequence[str]) -> ExecResult:
        delay = FIRST_DELAY
        with PlainProgram(self.agent, ["/bin/sh", "-c", script, "sh", *arguments]) as program:
            while program.result is None:
                self.tick()
                time.sleep(delay)
                delay = min(delay * DELAY_GROWTH, LONGEST_DELAY)
                program.poll()
        if program.result.stdout_truncated:
            raise ProtocolError("there is too much in this folder to list at once: copy its parts")
        return program.result


def listed(output: bytes) -> Iterator[Entry]:
    """What LIST has written, as entries."""
    while output:
        number, _, output = output.partition(b"\n")
        count = int(number)
        *lines, output = output.split(b"\n", count)
        *names, output = output.split(b"\0", count)
        if len(names) != count:
            raise ValueError("it ends too early")
        for name, line in zip(names, lines):
            yield entry(decoded(name)[len("./") :], line.decode())


def entry(name: str, line: str) -> Entry:
    mode, size = line.split()
    return Entry(name, int(mode, 16), int(size))


def decoded(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def lots(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
