"""The log: a file, the journal, syslog, or standard error.

What the host has done, the trail, always reaches the log of the system (the journal or syslog), as
with QEMU's agent, wherever else messages go.

What must stay true:

- Logging never raises and never stops the agent, even if the disk is full or the journal is gone.
  A message that a sink does not take goes to standard error, or is lost.
- One message is one line, whatever it contains, so that nobody can forge a line through a path or a
  command.
- Lines on standard error carry their level where the journal reads them, Python's own included.
- While the filesystems are frozen nothing is written, except a warning to a terminal or a pipe at
  the start. The first MAX_KEPT messages of each channel are written after the thaw, and then the
  number of those that were dropped.

Python's logging is not used: importing it costs more memory than the agent's loop.
"""

from __future__ import annotations

import os
import re
import sys
import time
from errno import ECONNREFUSED
from stat import S_ISBLK, S_ISREG
from typing import TYPE_CHECKING, Protocol

from qga.service import state
from qga.settings.trust import open_own
from qga.version import PROGRAM
from qga.wording import counted

if TYPE_CHECKING:
    from _socket import socket
    from typing import TextIO

    from qga.settings.config import Config


# Priorities as in syslog(3).
ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
LEVELS = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug"}

MESSAGE_IDS = {
    "started": "10dac81f207e48cabdfe71cae626d353",  # the agent is ready
    "command": "ef40b48fffde4ae1bcbbd32a4fdc19e5",  # a command has succeeded or failed
    "refused": "cdac59d5d95f410a96a2c44f9453753e",  # a request never reached its command
    "left-out": "1e68de6c1e6b4aa6b4353d68e173a4b4",  # number of further entries of the same kind
    "given-up": "0b11fda3fa9446e9b8a5ec83d49d992b",  # a command hangs, or returned too late
    "slow": "213bf34e633648778f8ffb9ca7986c68",  # a handler blocked the loop
    "dropped": "bee54d0633a74d64b793aef17954ea3c",  # number of messages lost while frozen
    "channel-gone": "90f9b56cb9ba4f17a450db20fa3f8b1f",  # a device was unplugged
    "channel-open": "6e406c6540e048489673f9543e206a1a",  # it was plugged in again
}
"""The MESSAGE_ID of each kind of message (systemd.journal-fields(7))."""

TRAIL = ("command", "refused", "left-out", "given-up", "dropped")
"""The kinds of messages that tell what the host has done."""

MAX_KEPT = 100
"""Messages of each channel that are kept during a freeze and written after the thaw."""

# Seconds that a thaw waits, on a worker, for logs to take what was kept. The kernel queues as few
# as ten datagrams (net.unix.max_dgram_qlen), and who reads them may have waited for a disk.
_PATIENCE = 1.0

_JOURNAL = "/run/systemd/journal/socket"  # systemd-journald.service(8)
_SYSLOG = "/dev/log"
_FACILITY = 3 << 3  # LOG_DAEMON of syslog(3)
_MAX_SYSLOG = 8192  # bytes of a message; rsyslog cuts longer ones
_STDERR = 2
_ATOMIC = 4096  # PIPE_BUF: a pipe that is ready for writing takes that much at once

# Control characters, line and paragraph separators, and the marks that reorder text on a terminal.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Sink(Protocol):
    """Takes messages. `write` may raise OSError. `text` contains the facts in `fields`."""

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None: ...

    def reopen(self) -> None: ...


class StderrSink:
    """Standard error: plain text, or lines with a level prefix if the journal reads them.

    in_service: whether the journal reads them; detected by default.
    """

    def __init__(self, in_service: bool | None = None) -> None:
        self._in_service = in_service

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        in_service = _stderr_is_journal() if self._in_service is None else self._in_service
        line = f"<{priority}>{text}" if in_service else _plain(priority, text)
        if not _has_room(_STDERR):
            raise BlockingIOError("standard error is full")
        os.write(_STDERR, _encode(line)[: _ATOMIC - 1] + b"\n")

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

    libc's syslog(3) would wait for a daemon that no longer reads, and does not report that there is
    none. `write` raises OSError for both.
    """

    def __init__(self) -> None:
        self._socket: socket | None = None

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
        self._socket = _connect_to(_SYSLOG)
        if self._socket is None:
            raise ConnectionRefusedError(ECONNREFUSED, os.strerror(ECONNREFUSED))
        self._socket.setblocking(False)
        self._socket.send(message)

    def reopen(self) -> None:
        pass


class Log:
    """Takes messages of four levels.

    kind: one of MESSAGE_IDS. fields: facts by name. Both are for the journal, where they can be
    searched; the text contains the same facts.

    sink: takes warnings and errors; all messages if `verbose`.
    system: takes the trail, whatever its level; the sink takes it where this fails.
    frozen: whether the filesystems are frozen already.
    `on_stderr` is whether messages appear on standard error anyway.
    """

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        system: Sink | None = None,
        verbose: bool = False,
        frozen: bool = False,
    ) -> None:
        self._sink: Sink = sink or StderrSink()
        self._system = system
        self._least = DEBUG if verbose else INFO if system is self._sink else WARNING
        self._frozen = frozen
        self._kept: list[tuple[float, int, str, str, dict[str, str]]] = []
        self._kept_of: dict[object, int] = {}  # how many of each channel
        self._dropped = 0
        self._reopen_at_thaw = False
        self.on_stderr = isinstance(self._sink, StderrSink) or (
            not isinstance(self._sink, FileSink) and _stderr_is_journal()
        )

    def debug(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(DEBUG, text, kind, fields)

    def info(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(INFO, text, kind, fields)

    def warning(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(WARNING, text, kind, fields)

    def error(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(ERROR, text, kind, fields)

    def announce(self, priority: int, text: str) -> None:
        """Log a message, and show it on standard error to whoever has started the agent.

        While frozen it appears there unless that is a file, which may be on a frozen filesystem.
        """
        line = escape(text)
        waits = self._frozen and _is_on_disk(_STDERR)
        shown = not waits and _offer(StderrSink(), (priority, line, {}))
        if shown and self.on_stderr:
            return
        if self._frozen or not shown:
            self._write(priority, text, "", {})
        else:
            _offer(self._sink, (priority, line, {}))

    def keeps(self, priority: int, kind: str = "") -> bool:
        """Whether messages of this level and kind are kept."""
        return priority <= (max(self._least, INFO) if kind in TRAIL else self._least)

    @property
    def frozen(self) -> bool:
        """Whether messages are kept instead of written."""
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        if frozen:
            return
        if self._reopen_at_thaw:
            self._reopen_at_thaw = False
            self.reopen()
        kept, self._kept, self._kept_of = self._kept, [], {}
        dropped, self._dropped = self._dropped, 0
        deadline = time.monotonic() + _PATIENCE
        for since, priority, text, kind, fields in kept:
            age = time.monotonic() - since
            aged = f"{text} ({age:.0f} s ago, while filesystems were frozen)"
            self._send(priority, aged, kind, fields, deadline)
        if dropped:
            self.warning(
                f"{counted(dropped, 'more message was', 'more messages were')} dropped "
                "while filesystems were frozen",
                "dropped",
            )

    def reopen(self) -> None:
        """Open the log file again, for log rotation; after the thaw if frozen. Never raises."""
        if self._frozen:
            self._reopen_at_thaw = True
            return
        try:
            self._sink.reopen()
        except OSError as error:
            self.error(f"cannot reopen the log file: {error.strerror}")

    def _write(self, priority: int, text: str, kind: str, fields: dict[str, object]) -> None:
        if not self.keeps(priority, kind):
            return
        safe_text = escape(text)
        safe_fields = {name: escape(str(value)) for name, value in fields.items()}
        if kind:
            safe_fields["MESSAGE_ID"] = MESSAGE_IDS[kind]
        channel = fields.get("channel")
        if not self._frozen:
            self._send(priority, safe_text, kind, safe_fields)
        elif self._kept_of.get(channel, 0) < MAX_KEPT:
            self._kept_of[channel] = self._kept_of.get(channel, 0) + 1
            self._kept.append((time.monotonic(), priority, safe_text, kind, safe_fields))
        else:
            self._dropped += 1

    def _send(
        self, priority: int, text: str, kind: str, fields: dict[str, str], deadline: float = 0.0
    ) -> None:
        """deadline: until when to wait for a log that is busy."""
        message = (priority, text, fields)
        in_trail = kind in TRAIL and priority <= INFO
        if in_trail and self._system not in (None, self._sink):
            taken = _offer(self._system, message, deadline)
            if taken and priority > self._least:
                return
        if not _offer(self._sink, message, deadline):
            _offer(StderrSink(), message)


def open_log(config: Config) -> Log:
    """The log for a configuration. Raises OSError if its file cannot be opened."""
    frozen = state.is_frozen(config.statedir)
    system = _open_system_log(config)
    sink = _choose_sink(config, system)
    if not frozen:
        sink.reopen()
    return Log(sink, system=system, verbose=config.verbose, frozen=frozen)


def mark_levels() -> None:
    """Mark Python's own messages (tracebacks, warnings) as errors in the journal."""
    if sys.stderr is not None and _stderr_is_journal():
        sys.stderr = JournalText(sys.stderr)


def escape(text: str) -> str:
    """The text on one line, with escapes such as `\\n` and `\\x1b` for control characters."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _open_system_log(config: Config) -> Sink:
    if config.daemonize or _stderr_is_journal():
        try:
            return JournalSink()
        except ImportError:
            pass
    return SyslogSink()


def _choose_sink(config: Config, system: Sink) -> Sink:
    if config.logfile:
        return FileSink(config.logfile)
    return system if config.daemonize or _stderr_is_journal() else StderrSink(False)


def _offer(sink: Sink, message: tuple[int, str, dict[str, str]], deadline: float = 0.0) -> bool:
    """Whether the sink has taken the message."""
    while True:
        try:
            sink.write(*message)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PATIENCE / 100)
        except OSError:
            return False


def _is_on_disk(fd: int) -> bool:
    """Whether writing to a descriptor may wait for a filesystem; True if that is unknown."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return True
    return S_ISREG(mode) or S_ISBLK(mode)


def _stderr_is_journal() -> bool:
    """Whether JOURNAL_STREAM is the device and inode of standard error (systemd.exec(5))."""
    try:
        status = os.fstat(_STDERR)
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
