"""The guest's side of a copy if programs can be run there.

The scripts of qga.client.copies.shell_scripts do what the agent's file commands cannot: list,
rename and compare files. The agent itself writes the content, by the path of the file. So QEMU's
agent follows a link that somebody puts there in the meantime.

A script that takes too long is killed before the error is raised. None may run forever, whatever
the guest reports.
"""

from __future__ import annotations

import posixpath
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from qga.client.agent import GuestAgent
from qga.client.commands.exec import DELAY_GROWTH, FIRST_DELAY
from qga.client.commands.files import SLACK
from qga.client.copies.guest_files import GuestFiles
from qga.client.copies.port_files import SLOWEST
from qga.client.copies.shell_scripts import (
    CHECKSUMS,
    CREATE,
    EACH,
    ENTER,
    FIND,
    FINISH,
    FOLLOW,
    HAS_TOOLS,
    LINKS,
    LIST,
    LOOK,
    MAKE_FOLDER,
    MAKE_LINK,
    MAKE_TEMPORARY,
    OWNERS,
    POUR,
    REMOVE,
    SET_PERMISSIONS,
    TAKE_UP,
    Script,
)
from qga.client.copies.trees import (
    OTHERS_WRITE,
    Entry,
    Finished,
    Piece,
    Place,
    checked,
    split,
)
from qga.client.data_ports import DataPorts
from qga.client.errors import AgentTimeout, CommandNotFound, CopyError, ProtocolError
from qga.client.programs import PlainProgram
from qga.client.results import ExecResult
from qga.client.waits import pause, undisturbed

T = TypeVar("T")

# The longest pause between two status requests, in seconds.
LONGEST_DELAY = 0.1

# Files per script: with paths of 4 KiB their arguments are still far below ARG_MAX.
BATCH = 64

# Seconds that a script may take, plus the time for the bytes that it reads or writes (SLOWEST), and
# seconds for a script that only cleans up.
PATIENCE = 600.0
TIDYING = 30.0

READ_WRITE = stat.S_IRUSR | stat.S_IWUSR
ANY_EXECUTES = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH

OCTAL = re.compile("0*[0-7]{1,3}")

# Files of a tree. Each one that the guest lists takes some hundred bytes of memory.
MOST_FILES = 500_000

# Bytes of the output of a script, except LIST.
MOST_WRITTEN = 1024 * 1024

# One more than the highest st_mode, and than the largest file (loff_t).
MODES, SIZES = 1 << 16, 1 << 63


class ShellFiles(GuestFiles):
    """Files of a guest that can run the scripts."""

    can_compare = True
    can_rename = True
    slack = SLACK

    def __init__(
        self,
        agent: GuestAgent,
        tick: Callable[[], None] = lambda: None,
        ports: DataPorts | None = None,
    ) -> None:
        super().__init__(agent, tick, ports)
        self._umask = 0o022
        self._made: dict[Place, str] = {}
        """Device and inode of the temporary files."""

    def lost(self, as_target: bool) -> str:
        return ""

    def works(self) -> bool:
        """Whether the guest has what the scripts need. Raises the errors of guest-exec."""
        result = self._run(HAS_TOOLS, [])
        digits = decoded(result.stdout).strip()
        if OCTAL.fullmatch(digits):
            self._umask = int(digits, 8)
        return not result.status

    def find(self, path: str) -> Entry | None:
        line = self._script(FIND, [path]).decode(errors="replace")
        return entry("", line) if line else None

    def below(self, path: str) -> tuple[list[Entry], list[str]]:
        result = self._run(LIST, [path])
        entries = list(listed(result.stdout))
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

    def checksums(self, pieces: Sequence[Piece]) -> list[str]:
        try:
            return [self._checksum(piece) for piece in pieces]
        except CommandNotFound:
            return self._checksums_by_shell(pieces)

    def look(self, places: Sequence[Place]) -> list[Entry | None]:
        answers = self._each(LOOK, [location(place) for place in places])
        found = [answer[1:] if answer.startswith("+") else "" for answer in answers]
        return [entry("", line) if line else None for line in found]

    def follow(self, place: Place) -> tuple[Place, Entry]:
        answer = self._one(FOLLOW, place)
        with sensible(answer):
            found, real = answer.split("\n", 1)
        return split(real), entry("", found)

    def make_folders(self, places: Sequence[Place]) -> list[str]:
        return reasons(self._each(MAKE_FOLDER, [location(place) for place in places]))

    def create(
        self, places: Sequence[Place], permissions: Sequence[int | None], exactly: bool
    ) -> list[str]:
        masks = [self._mask(mode, exactly) for mode in permissions]
        arguments = [[*location(place), mask] for place, mask in zip(places, masks)]
        answers = self._each(CREATE, arguments)
        for place, answer in zip(places, answers):
            if answer.startswith("+"):
                self._made[place] = answer[1:]
        return reasons(answers)

    def take_up(self, place: Place) -> int | None:
        answer = self._one(TAKE_UP, place)
        if not answer:
            return None
        with sensible(answer):
            identity, links, status = answer.split(maxsplit=2)
        found = entry("", status)
        if links != "1" or found.mode & OTHERS_WRITE:
            raise CopyError("has hard links, or is writable by other users")
        self._made[place] = identity
        return found.size

    def write_through(self, place: Place, kind: int, chunks: Iterator[bytes]) -> None:
        if stat.S_ISBLK(kind):
            with self._opened(place.path, "r+", 0) as handle:
                self._write_all(handle, chunks)
            return
        # An agent that does not wait for the reader of a FIFO may lose bytes.
        with undisturbed():
            temporary = split(decoded(self._script(MAKE_TEMPORARY, [])).removesuffix("\n"))
        try:
            with self._opened(temporary.path, "r+", 0) as handle:
                size = self._write_all(handle, chunks)
            test = "-p" if stat.S_ISFIFO(kind) else "-c"
            self._one(POUR, place, temporary.path, test, size=size)
        finally:
            self.remove([temporary])

    def finish(self, files: Sequence[Finished], exactly: bool) -> list[str]:
        arguments = [
            [
                *location(file.place),
                file.temporary.name.rpartition("/")[2],
                self._made.pop(file.temporary, ""),
                self._permissions(file.permissions, exactly),
                "y" if exactly else "",
            ]
            for file in files
        ]
        return reasons(self._each(FINISH, arguments, sum(file.size for file in files)))

    def make_links(self, links: Sequence[tuple[str, Place]]) -> list[str]:
        return reasons(self._each(MAKE_LINK, [[*location(place), to] for to, place in links]))

    def set_permissions(self, folders: Sequence[tuple[int, Place]], exactly: bool) -> list[str]:
        arguments = [
            [*location(place), self._permissions(mode, exactly)] for mode, place in folders
        ]
        return reasons(self._each(SET_PERMISSIONS, arguments))

    def remove(self, places: Sequence[Place]) -> None:
        self._each(REMOVE, [location(place) for place in places], patience=TIDYING)

    def _mask(self, mode: int | None, exactly: bool) -> str:
        """The umask for a new file to get these permissions; "" if there is none."""
        if mode is None or mode & ANY_EXECUTES or mode & READ_WRITE != READ_WRITE:
            return ""
        return f"{0o777 & ~mode if exactly else 0o777 & ~mode | self._umask:o}"

    def _permissions(self, mode: int, exactly: bool) -> str:
        return f"{mode if exactly else mode & ~self._umask:o}"

    def _checksums_by_shell(self, pieces: Sequence[Piece]) -> list[str]:
        sums: list[str] = []
        for lot in lots(pieces, BATCH):
            arguments = [
                text
                for piece in lot
                for text in (piece.place.path, str(piece.offset), str(piece.size))
            ]
            size = sum(piece.size for piece in lot)
            lines = self._script(CHECKSUMS, arguments, size).decode(errors="replace").splitlines()
            sums += [line.partition(" ")[0] for line in lines]
        return sums

    def _one(self, act: Script, place: Place, *more: str, size: int = 0) -> str:
        """The output of `act` for one file. Raises CopyError if it failed."""
        (answer,) = self._each(act, [[*location(place), *more]], size)
        if answer.startswith("-"):
            raise CopyError(answer[1:])
        return answer[1:]

    def _each(
        self,
        act: Script,
        arguments: Sequence[Sequence[str]],
        size: int = 0,
        patience: float | None = None,
    ) -> list[str]:
        """The output of `act` for each file, after "+" for success or "-" for failure.

        size: the most bytes that the script may read or write.
        """
        script = Script(act.purpose, ENTER + OWNERS + act.text + EACH)
        answers: list[str] = []
        for lot in lots(arguments, BATCH):
            flat = [text for each in lot for text in each]
            output = self._script(script, [str(len(lot[0])), *flat], size, patience)
            texts = [decoded(text).removesuffix("\n") for text in output.split(b"\0")[:-1]]
            said, statuses = texts[0::2], texts[1::2]
            if not len(said) == len(statuses) == len(lot):
                raise ProtocolError("the guest's shell gave an incomplete answer")
            answers += [
                f"{'-' if status != '0' else '+'}{text}" for text, status in zip(said, statuses)
            ]
        return answers

    def _script(
        self,
        script: Script,
        arguments: Sequence[str],
        size: int = 0,
        patience: float | None = None,
    ) -> bytes:
        """The output of a script. Raises CopyError if it fails."""
        result = self._run(script, arguments, size, patience)
        if result.status:
            reason = decoded(result.stderr).strip() or f"/bin/sh exited with {result.status}"
            raise CopyError(reason, address=self.agent.address)
        if len(result.stdout) > MOST_WRITTEN:
            raise ProtocolError("the guest's shell printed more than the script can")
        return result.stdout

    def _run(
        self,
        script: Script,
        arguments: Sequence[str],
        size: int = 0,
        patience: float | None = None,
    ) -> ExecResult:
        """Run a script that reads or writes `size` bytes. Raises AgentTimeout."""
        seconds = (PATIENCE if patience is None else patience) + size / SLOWEST
        deadline, delay = time.monotonic() + seconds, FIRST_DELAY
        # The guest's journal shows the first line of a script.
        text = f"# qga.client: {script.purpose}\n{script.text}"
        with PlainProgram(self.agent, ["/bin/sh", "-c", text, "sh", *arguments]) as program:
            while program.result is None:
                self.tick()
                pause(delay)
                delay = min(delay * DELAY_GROWTH, LONGEST_DELAY)
                program.poll()
                if program.result is None and time.monotonic() > deadline:
                    reason = f"/bin/sh in the guest has not finished {script.purpose}"
                    raise AgentTimeout(self.agent.address, "guest-exec", seconds, reason)
        if program.result.stdout_truncated:
            raise ProtocolError("this directory is too large to list at once: copy its parts")
        return program.result


def location(place: Place) -> list[str]:
    """A place as arguments of a script."""
    folder, name = posixpath.split(place.name)
    return [place.top, folder, name]


def reasons(answers: Sequence[str]) -> list[str]:
    return ["" if answer[0] == "+" else answer[1:].strip() or "failed" for answer in answers]


@contextmanager
def sensible(answer: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise ProtocolError(f"the guest's shell answered {answer[:100]!r}") from None


def listed(output: bytes) -> Iterator[Entry]:
    """Parse the output of LIST. Raises ProtocolError if it is invalid."""
    try:
        position = total = 0
        while position < len(output):
            end = output.index(b"\n", position)
            count = int(output[position:end])
            total += count
            if total > MOST_FILES:
                raise ValueError(f"more than {MOST_FILES} files: copy its parts")
            lines, position = fields(output, end + 1, count, b"\n")
            names, position = fields(output, position, count, b"\0")
            for name, line in zip(names, lines):
                if not name.startswith(b"./"):
                    raise ValueError("a name does not begin with ./")
                yield entry(decoded(name)[len("./") :], line.decode())
    except ValueError as error:
        raise ProtocolError(f"the guest's list of files is invalid: {error}") from None


def fields(output: bytes, position: int, count: int, end: bytes) -> tuple[list[bytes], int]:
    """`count` fields from `position` on, and the position after the last of them."""
    found = []
    for _ in range(count):
        stop = output.index(end, position)
        found.append(output[position:stop])
        position = stop + 1
    return found, position


def entry(name: str, line: str) -> Entry:
    """Parse a line of stat(1). Raises ProtocolError if it is impossible."""
    try:
        mode, size = line.split()
        found = Entry(name, int(mode, 16), int(size))
    except ValueError:
        raise ProtocolError(f"the guest's stat printed {line[:100]!r}") from None
    if not (0 <= found.mode < MODES and 0 <= found.size < SIZES):
        raise ProtocolError(f"the guest's stat printed {line[:100]!r}")
    return found


def decoded(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def lots(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
