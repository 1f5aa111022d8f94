"""Where the agent complains: a log file, the journal, syslog, or standard error.

Four things must stay true. Logging never raises and never stops the agent, be the disk full or
the journal gone: what a sink does not take goes to standard error, or nowhere. One message is one
line whatever it holds, so that nobody forges a line through a path or a command. What reaches the
journal through standard error tells its level, Python's own complaints included. And while the
filesystems are frozen nothing is written at all; the first MAX_KEPT messages of each channel are
told after the thaw, and how many more there were. Python's logging is not used: its import costs
more than this agent's loop.
"""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Protocol

from qga.service import state
from qga.settings.trust import open_own
from qga.version import PROGRAM
from qga.wording import counted

if TYPE_CHECKING:
    from _socket import socket
    from typing import TextIO

    from qga.settings.config import Config


# Priorities of syslog(3).
ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
LEVELS = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug"}

MESSAGE_IDS = {
    "started": "10dac81f207e48cabdfe71cae626d353",  # the agent serves
    "command": "ef40b48fffde4ae1bcbbd32a4fdc19e5",  # a command was carried out, or has failed
    "refused": "cdac59d5d95f410a96a2c44f9453753e",  # a request never reached its command
    "left-out": "1e68de6c1e6b4aa6b4353d68e173a4b4",  # so many entries like the last ones
    "given-up": "0b11fda3fa9446e9b8a5ec83d49d992b",  # a command that hangs, or returns too late
    "slow": "213bf34e633648778f8ffb9ca7986c68",  # a handler kept the loop from everybody else
    "dropped": "bee54d0633a74d64b793aef17954ea3c",  # so many messages, while frozen
    "channel-gone": "90f9b56cb9ba4f17a450db20fa3f8b1f",  # a device was unplugged
    "channel-open": "6e406c6540e048489673f9543e206a1a",  # it is back
}
"""What the journal finds a kind of message by: MESSAGE_ID of systemd.journal-fields(7)."""

MAX_KEPT = 100
"""Messages of the time of a freeze that are told after the thaw, of each channel."""

_JOURNAL = "/run/systemd/journal/socket"  # of systemd-journald.service(8)
_SYSLOG = "/dev/log"
_STDERR = 2
_ATOMIC = 4096  # PIPE_BUF: a pipe that has room for anything has room for that much

# Control characters, line and paragraph separators, and the marks that reorder text on a terminal.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Sink(Protocol):
    """Takes messages. `write` may raise OSError. `text` says what `fields` holds, too."""

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None: ...

    def reopen(self) -> None: ...


class StderrSink:
    """Standard error: plain text, or lines with a level if systemd's journal reads them.

    in_service: whether it is; found out by default.
    """

    def __init__(self, in_service: bool | None = None) -> None:
        self._in_service = in_service

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        in_service = _stderr_is_journal() if self._in_service is None else self._in_service
        line = f"<{priority}>{text}" if in_service else _plain(priority, text)
        if not _has_room(_STDERR):
            raise BlockingIOError("nobody reads standard error")
        os.write(_STDERR, _encode(line)[: _ATOMIC - 1] + b"\n")

    def reopen(self) -> None:
        pass


class JournalText:
    """For sys.stderr where that is the journal: marks each line as an error."""

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
    """A log file, which is opened by `reopen` or by the first message."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        if self._fd < 0:
            self.reopen()
        line = f"{time.time():.6f}: {LEVELS[priority]}: {text}\n"
        os.write(self._fd, _encode(line))

    def reopen(self) -> None:
        """Open the path anew, where a log rotation has moved the file. Raises OSError."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # it may be a FIFO
        self._fd = open_own(self._path, flags, 0o666)


class JournalSink:
    """systemd's journal, through systemd-python.

    Fields are searchable as QGA_<NAME>, but for MESSAGE_ID, which is the journal's own.
    sd_journal_sendv(3) waits for a journal that reads no more, so its queue is looked at before,
    through a connection of our own to the same socket.
    """

    def __init__(self) -> None:
        from importlib import import_module

        # Not systemd.journal, which offers the same function: it imports logging and the reader.
        self._send = import_module("systemd._journal").sendv
        self._queue = _connect_to(_JOURNAL)

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        _check_room(self._queue)
        entry = {"MESSAGE": text, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": PROGRAM}
        for name, value in fields.items():
            entry[name if name == "MESSAGE_ID" else f"QGA_{name.upper()}"] = value
        self._send(*(_encode(f"{name}={value}") for name, value in entry.items()))

    def reopen(self) -> None:
        pass


class SyslogSink:
    """syslog(3), for a daemon, whose standard error is gone. It waits like the journal's."""

    def __init__(self) -> None:
        self._queue = _connect_to(_SYSLOG)

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        import syslog

        _check_room(self._queue)
        line = _encode(text).decode()
        syslog.openlog(PROGRAM, syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(priority, line)

    def reopen(self) -> None:
        pass


class Log:
    """Takes messages of four levels.

    kind: one of MESSAGE_IDS. fields: facts by name. Both are for the journal, where they can be
    searched; the text says the same to those who read it.
    Kept are warnings and errors, with `keeps_info` messages of level info, too, and with `verbose`
    all.
    `on_stderr` says whether messages are seen on standard error already.
    """

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        verbose: bool = False,
        keeps_info: bool = False,
        frozen: bool = False,
    ) -> None:
        self._sink: Sink = sink or StderrSink()
        self._least = DEBUG if verbose else INFO if keeps_info else WARNING
        self._frozen = frozen
        self._kept: list[tuple[float, int, str, dict[str, str]]] = []
        self._kept_of: dict[object, int] = {}  # how many of each channel
        self._dropped = 0
        self._reopen_at_thaw = False
        self.on_stderr = isinstance(self._sink, StderrSink) or (
            isinstance(self._sink, JournalSink) and _stderr_is_journal()
        )

    def debug(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(DEBUG, text, kind, fields)

    def info(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(INFO, text, kind, fields)

    def warning(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(WARNING, text, kind, fields)

    def error(self, text: str, kind: str = "", **fields: object) -> None:
        self._write(ERROR, text, kind, fields)

    def keeps(self, priority: int) -> bool:
        """Whether messages of this level are kept."""
        return priority <= self._least

    @property
    def frozen(self) -> bool:
        """While True, nothing is written."""
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
        for since, priority, text, fields in kept:
            age = time.monotonic() - since
            self._send(priority, f"{text} ({age:.0f} s ago, while filesystems were frozen)", fields)
        if dropped:
            self.warning(
                f"{counted(dropped, 'more message was', 'more messages were')} dropped "
                "while filesystems were frozen",
                "dropped",
            )

    def reopen(self) -> None:
        """Open the log file anew, for log rotation; after the thaw when frozen. Never raises."""
        if self._frozen:
            self._reopen_at_thaw = True
            return
        try:
            self._sink.reopen()
        except OSError as error:
            self.error(f"cannot reopen the log file: {error.strerror}")

    def _write(self, priority: int, text: str, kind: str, fields: dict[str, object]) -> None:
        if not self.keeps(priority):
            return
        safe_text = escape(text)
        safe_fields = {name: escape(str(value)) for name, value in fields.items()}
        if kind:
            safe_fields["MESSAGE_ID"] = MESSAGE_IDS[kind]
        channel = fields.get("channel")
        if not self._frozen:
            self._send(priority, safe_text, safe_fields)
        elif self._kept_of.get(channel, 0) < MAX_KEPT:
            self._kept_of[channel] = self._kept_of.get(channel, 0) + 1
            self._kept.append((time.monotonic(), priority, safe_text, safe_fields))
        else:
            self._dropped += 1

    def _send(self, priority: int, text: str, fields: dict[str, str]) -> None:
        for sink in (self._sink, StderrSink()):
            try:
                sink.write(priority, text, fields)
                return
            except OSError:
                continue


def open_log(config: Config) -> Log:
    """The log that a configuration asks for. Raises OSError when its file cannot be opened."""
    frozen = state.is_frozen(config.statedir)
    sink = _choose_sink(config)
    if not frozen:
        sink.reopen()
    # As QEMU's agent, which tells syslog, but nobody else, of what it runs and opens.
    keeps_info = isinstance(sink, (JournalSink, SyslogSink))
    return Log(sink, verbose=config.verbose, keeps_info=keeps_info, frozen=frozen)


def tell_levels() -> None:
    """Let Python's own messages (tracebacks, warnings) reach the journal as errors."""
    if sys.stderr is not None and _stderr_is_journal():
        sys.stderr = JournalText(sys.stderr)


def escape(text: str) -> str:
    """The text on one line: `\\n`, `\\x1b` and the like for what a terminal would act upon."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _choose_sink(config: Config) -> Sink:
    if config.logfile:
        return FileSink(config.logfile)
    in_service = _stderr_is_journal()
    if in_service or config.daemonize:
        try:
            return JournalSink()
        except ImportError:
            pass
    return SyslogSink() if config.daemonize else StderrSink(in_service)


def _stderr_is_journal() -> bool:
    """As systemd.exec(5) has it: JOURNAL_STREAM is the device and inode of the journal's end."""
    try:
        status = os.fstat(_STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _connect_to(path: str) -> socket | None:
    """A datagram socket connected to that at `path`; None where there is none."""
    from _socket import AF_UNIX, SOCK_DGRAM, socket

    connected = socket(AF_UNIX, SOCK_DGRAM)
    try:
        connected.connect(path)
    except OSError:
        connected.close()
        return None
    return connected


def _check_room(queue: socket | None) -> None:
    """Raise BlockingIOError where one more datagram would have to wait."""
    if queue is not None and not _has_room(queue.fileno()):
        raise BlockingIOError("its queue is full")


def _has_room(fd: int) -> bool:
    """Whether _ATOMIC bytes, or a datagram, can be written without waiting for who reads them."""
    from select import POLLOUT, poll

    poller = poll()
    poller.register(fd, POLLOUT)
    return bool(poller.poll(0))


def _plain(priority: int, text: str) -> str:
    return f"{PROGRAM}: {LEVELS[priority]}: {text}"


def _encode(text: str) -> bytes:
    """Lone surrogates, which stand for bytes that are no UTF-8, come out as escapes."""
    return text.encode("utf-8", "backslashreplace")
