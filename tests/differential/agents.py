"""Agents side by side: QEMU's, of two releases, and ours, in the same surroundings.

All run with the same environment and umask, and find the same paths with the same content, so
that replies may be compared as they are.

The answer to some bytes is read up to a marker: a 0xFF, which ends whatever the bytes left open,
and a guest-ping with an id of its own. A guest-sync would not do: to our agent it means that the
client has given up on the requests before it.

Positions in parse errors count from the agent's start. Here they are made to count from the
beginning of what is played.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import select
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Union

FETCH_ORIGINAL = Path(__file__).parents[2] / "packaging/fetch-original"
SUITES = {"7.2": "bookworm", "11.1": "sid"}
"""The Debian suites whose qemu-ga is compared with, by the version of QEMU."""

OURS = (sys.executable, "-m", "qga")

PATIENCE = 30.0
"""Seconds without a byte after which an agent has failed to answer."""

SIOCOUTQ = 0x5411
"""linux/sockios.h: how much of what was sent the peer has not read yet."""

RESET = re.compile(
    rb"""{"error": {"class": "GenericError", "desc": "(\d+:\d+: )?JSON parse error, """
    rb"""stray '\\uFFFD'"}}\n\Z"""
)
"""The answer to 0xFF when nothing was pending."""

POSITION = re.compile(rb'(?<="desc": ")(\d+)(?=:\d+: JSON parse error, )')

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "TZ": "Europe/Berlin",
    "QGA_CONF": "/nonexistent/qemu-ga.conf",
}


class Until(NamedTuple):
    """A request, sent again and again until the reply no longer holds `gone`."""

    request: bytes
    gone: bytes


class Look(NamedTuple):
    """A look at a file of the scratch folder: its permissions and content."""

    name: str


PLACEHOLDER = re.compile(rb"@(scratch|handle|pid)")
Step = Union[bytes, Until, Look]
Cut = Callable[[bytes], Sequence[bytes]]


class Case(NamedTuple):
    """What is played to both agents.

    In the steps `@scratch` stands for the scratch folder, `@handle` and `@pid` for what the last
    guest-file-open and guest-exec returned. `volatile` are (pattern, replacement) pairs for what
    no two replies have in common, such as the time. `breaks` means that an original is of no
    more use afterwards.
    """

    name: str
    steps: Sequence[Step]
    volatile: Sequence[tuple[bytes, bytes]] = ()
    breaks: bool = False

    @property
    def plain(self) -> bytes | None:
        """The case's bytes, if it is nothing but bytes sent once."""
        only = self.steps[0] if len(self.steps) == 1 else None
        return only if isinstance(only, bytes) and not PLACEHOLDER.search(only) else None


def original(version: str) -> Sequence[str]:
    """The command of QEMU's agent of this version, as `packaging/prepare test` has fetched it."""
    command = [str(FETCH_ORIGINAL), "--cached", SUITES[version]]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return [found.stdout.strip()]


def whole(data: bytes) -> Sequence[bytes]:
    return (data,)


def byte_by_byte(data: bytes) -> Sequence[bytes]:
    return [data[i : i + 1] for i in range(len(data))] or [data]


class Agent:
    """A running agent on a unix socket in `folder`, with one connection to it."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.path = folder / "socket"
        self.errors = folder / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "-m", "unix-listen", "-p", str(self.path), "-t", str(folder)],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                umask=0o022,
            )
        self.numbers = itertools.count(1)
        self.lines_before = 0
        self.connect()

    def connect(self) -> None:
        """Open a new connection, waiting for the agent to listen."""
        give_up = time.monotonic() + PATIENCE
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(str(self.path))
                return
            except OSError:
                self.socket.close()
                if self.process.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError(f"no agent: {self.errors.read_text()}") from None
                time.sleep(0.005)

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait(PATIENCE)

    def play(self, *pieces: bytes) -> bytes:
        """Send the pieces, each once the agent has read those before; return all it answered.

        The answer to the 0xFF behind them is part of it only when it shows more than the 0xFF.
        """
        marker = b'"differential-%d"' % next(self.numbers)
        *earlier, last = pieces
        for piece in earlier:
            self.socket.sendall(piece)
            self.wait_until_read()
        answer = self.exchange(
            last + b'\xff{"execute":"guest-ping","id":%s}\n' % marker,
            b'{"return": {}, "id": %s}\n' % marker,
        )
        answer = POSITION.sub(self.line_of_play, RESET.sub(b"", answer))
        self.lines_before += sum(piece.count(b"\n") for piece in pieces) + 1
        return answer

    def line_of_play(self, line: re.Match[bytes]) -> bytes:
        return b"%d" % (int(line[1]) - self.lines_before)

    def wait_until_read(self) -> None:
        unread = b"\xff"
        while any(unread):
            os.sched_yield()
            unread = fcntl.ioctl(self.socket, SIOCOUTQ, struct.pack("i", 0))

    def exchange(self, data: bytes, end: bytes) -> bytes:
        """Send and receive at once, so that neither side's buffer can stop the other."""
        answer = bytearray()
        unsent = memoryview(data)
        while not answer.endswith(end):
            wanted = [self.socket] if unsent else []
            readable, writable, _ = select.select([self.socket], wanted, [], PATIENCE)
            if not readable and not writable:
                self.socket.close()
                self.connect()
                raise AssertionError(f"no answer to {data[-300:]!r}, only {bytes(answer)!r}")
            if writable:
                unsent = unsent[self.socket.send(unsent, socket.MSG_DONTWAIT) :]
            if readable:
                received = self.socket.recv(1 << 20)
                if not received:
                    raise AssertionError(f"hung up after {bytes(answer)!r} on {data[-300:]!r}")
                answer += received
        return bytes(answer[: -len(end)])


class Performance:
    """A case played to one agent: what it answered at each step, numbers made comparable."""

    def __init__(self, agent: Agent, scratch: Path, cut: Cut = whole) -> None:
        self.agent, self.scratch, self.cut = agent, scratch, cut
        self.values = {b"scratch": os.fsencode(scratch), b"handle": b"none", b"pid": b"none"}

    def of(self, case: Case) -> list[bytes]:
        """The lines answered, and what the looks at files saw, in order."""
        return [self.comparable(line, case) for step in case.steps for line in self.perform(step)]

    def perform(self, step: Step) -> Iterator[bytes]:
        if isinstance(step, Look):
            yield self.look(self.scratch / step.name)
            return
        request = step.request if isinstance(step, Until) else step
        reply = self.send(request)
        while isinstance(step, Until) and step.gone in reply:
            reply = self.send(request)
        yield from reply.splitlines(keepends=True)

    def send(self, request: bytes) -> bytes:
        request = PLACEHOLDER.sub(lambda name: self.values[name[1]], request)
        reply = self.agent.play(*self.cut(request))
        opened = re.match(rb'{"return": (\d+)}', reply)
        if opened and b"guest-file-open" in request:
            self.values[b"handle"] = opened[1]
        if started := re.match(rb'{"return": {"pid": (\d+)}}', reply):
            self.values[b"pid"] = started[1]
        return reply

    def look(self, path: Path) -> bytes:
        mode = stat.S_IMODE(path.stat().st_mode)
        return b"%s %04o %s\n" % (os.fsencode(path.name), mode, path.read_bytes())

    def comparable(self, line: bytes, case: Case) -> bytes:
        line = line.replace(os.fsencode(self.scratch), b"@scratch")
        handle, pid = self.values[b"handle"], self.values[b"pid"]
        for pattern, replacement in (
            (rb"handle '%s'" % handle, b"handle '@handle'"),
            (rb'"return": %s\b' % handle, b'"return": "@handle"'),
            (rb'"pid": %s\b' % pid, b'"pid": "@pid"'),
            (rb"PID %s " % pid, b"PID @pid "),
            *case.volatile,
        ):
            line = re.sub(pattern, replacement, line)
        return line
