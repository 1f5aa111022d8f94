"""Where messages of the log go: a file, the journal, syslog, or standard error.

What must stay true: a sink never waits. If it cannot take a message at once, it raises OSError, and
the log decides what to do with the message.
"""

from __future__ import annotations

import os
import time
from errno import ECONNREFUSED

from qga.settings.trust import open_own
from qga.version import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Protocol, TextIO

    class Sink(Protocol):
        """Takes messages. `write` may raise OSError. `text` contains the facts in `fields`."""

        def write(self, priority: int, text: str, fields: dict[str, str]) -> None: ...

        def reopen(self) -> None: ...


# Priorities as in syslog(3).
ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
LEVELS = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug"}

STDERR = 2

_JOURNAL = "/run/systemd/journal/socket"  # systemd-journald.service(8)
_SYSLOG = "/dev/log"
_FACILITY = 3 << 3  # LOG_DAEMON of syslog(3)
_MAX_SYSLOG = 8192  # bytes of a message; rsyslog cuts longer ones
_ABSENCE = 0.1  # seconds
_ATOMIC = 4096  # PIPE_BUF: a pipe that is ready for writing takes that much at once


class StderrSink:
    """Standard error: plain text, or lines with a level prefix if the journal reads them.

    in_service: whether the journal reads them; detected by default.
    """

    def __init__(self, in_service: bool | None = None) -> None:
        self._in_service = in_service

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        in_service = stderr_is_journal() if self._in_service is None else self._in_service
        line = f"<{priority}>{text}" if in_service else _plain(priority, text)
        if not _has_room(STDERR):
            raise BlockingIOError("standard error is full")
        os.write(STDERR, _encode(line)[: _ATOMIC - 1] + b"\n")

    def reopen(self) -> None:
        pass


class JournalText:
    """Replaces sys.stderr under systemd, and marks each line as an error."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begins = True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self._file.write(f"<{ERROR}>{line}" if self._begins else line)
            self._begins = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._file.flush()


class FileSink:
    """A log file, opened by `reopen` or by the first message."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        if self._fd < 0:
            self.reopen()
        line = f"{time.time():.6f}: {LEVELS[priority]}: {text}\n"
        os.write(self._fd, _encode(line))

    def reopen(self) -> None:
        """Open the path again after log rotation has moved the file. Raises OSError."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # it may be a FIFO
        # Not for all users: it quotes the arguments of programs, which may contain secrets.
        self._fd = open_own(self._path, flags, 0o640)


class JournalSink:
    """The journal of systemd, through systemd-python.

    Fields are named QGA_<NAME>, except for MESSAGE_ID. The field `brief` replaces `arguments` in
    the message, because `arguments` is a field of the entry; other logs have the text only.

    sd_journal_sendv(3) blocks if the journal
    does not read, so its queue is checked before, through a separate connection to its socket.
    """

    def __init__(self) -> None:
        from importlib import import_module

        # systemd.journal has the same function, but also imports logging and the reader.
        self._send = import_module("systemd._journal").sendv
        self._queue = _connect_to(_JOURNAL)

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        _check_room(self._queue)
        facts = dict(fields)
        brief = facts.pop("brief", None)
        if brief is not None:
            text = text.replace(facts["arguments"], brief)
        entry = {"MESSAGE": text, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": PROGRAM}
        for name, value in facts.items():
            entry[name if name == "MESSAGE_ID" else f"QGA_{name.upper()}"] = value
        self._send(*(_encode(f"{name}={value}") for name, value in entry.items()))

    def reopen(self) -> None:
        pass


class SyslogSink:
    """The socket of syslog, which is opened by the first message, and anew when it is replaced.
    Where there is none, it is not looked for again within _ABSENCE.

    libc's syslog(3) would wait for a daemon that no longer reads, and does not report that there is
    none. `write` raises OSError for both.
    """

    def __init__(self) -> None:
        self._socket: socket | None = None
        self._absent_until = 0.0

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        stamp = time.strftime("%b %e %H:%M:%S")  # the local format of RFC 3164, which all can read
        head = f"<{_FACILITY | priority}>{stamp} {PROGRAM}[{os.getpid()}]: "
        message = _encode(head + text)[:_MAX_SYSLOG]
        if self._socket is not None:
            try:
                self._socket.send(message)
                return
            except BlockingIOError:
                raise
            except OSError:  # the daemon was restarted, and has made a new socket
                self._socket.close()
        self._socket = self._connect()
        self._socket.send(message)

    def _connect(self) -> socket:
        now = time.monotonic()
        if now >= self._absent_until:
            connected = _connect_to(_SYSLOG)
            if connected is not None:
                connected.setblocking(False)
                return connected
            self._absent_until = now + _ABSENCE
        raise ConnectionRefusedError(ECONNREFUSED, os.strerror(ECONNREFUSED))

    def reopen(self) -> None:
        pass


def stderr_is_journal() -> bool:
    """Whether JOURNAL_STREAM is the device and inode of standard error (systemd.exec(5))."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _connect_to(path: str) -> socket | None:
    """A datagram socket connected to `path`; None if that fails."""
    from _socket import AF_UNIX, SOCK_DGRAM, socket

    connected = socket(AF_UNIX, SOCK_DGRAM)
    try:
        connected.connect(path)
    except OSError:
        connected.close()
        return None
    return connected


def _check_room(queue: socket | None) -> None:
    """Raise BlockingIOError if another datagram would have to wait."""
    if queue is not None and not _has_room(queue.fileno()):
        raise BlockingIOError("the queue of the journal is full")


def _has_room(fd: int) -> bool:
    """Whether _ATOMIC bytes, or a datagram, can be written without blocking."""
    from select import POLLOUT, poll

    poller = poll()
    poller.register(fd, POLLOUT)
    return bool(poller.poll(0))


def _plain(priority: int, text: str) -> str:
    return f"{PROGRAM}: {LEVELS[priority]}: {text}"


def _encode(text: str) -> bytes:
    """Encode as UTF-8. Lone surrogates, which represent invalid bytes, become escapes."""
    return text.encode("utf-8", "backslashreplace")
