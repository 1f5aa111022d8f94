"""The log: a file, the journal, syslog, or standard error.

What the host has done, the trail, always reaches the log of the system (the journal or syslog), as
with QEMU's agent, wherever else messages go.

What must stay true:

- Logging never raises and never stops the agent, even if the disk is full or the journal is gone.
  A message that a sink does not take goes to standard error, or is lost.
- One message is one line, whatever it contains, so that nobody can forge a line through a path or a
  command, and none is long: journald drops an entry of megabytes, and with it what it tells.
- Lines on standard error carry their level where the journal reads them, Python's own included.
- While the filesystems are frozen nothing is written, except a warning to a terminal or a pipe at
  the start. The first MAX_KEPT messages of each channel are written after the thaw, and then the
  number of those that were dropped.

Python's logging is not used: importing it costs more memory than the agent's loop.
"""

from __future__ import annotations

import os
import sys
import time
from stat import S_ISBLK, S_ISREG

from qga.service import state
from qga.service.sinks import (
    DEBUG,
    ERROR,
    INFO,
    STDERR,
    WARNING,
    FileSink,
    JournalSink,
    JournalText,
    StderrSink,
    SyslogSink,
    stderr_is_journal,
)
from qga.stdlib import expression
from qga.wording import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.service.sinks import Sink
    from qga.settings.config import Config


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

MAX_TEXT = 8192
"""Characters of a message, or of one of its fields; longer ones are cut."""

# Seconds that a thaw waits, on a worker, for logs to take what was kept. The kernel queues as few
# as ten datagrams (net.unix.max_dgram_qlen), and who reads them may have waited for a disk.
_PATIENCE = 1.0

# Control characters, line and paragraph separators, and the marks that reorder text on a terminal.
_UNSAFE = expression("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


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
            not isinstance(self._sink, FileSink) and stderr_is_journal()
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
        line = escape(text[:MAX_TEXT])
        waits = self._frozen and _is_on_disk(STDERR)
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
        safe_text = escape(text[:MAX_TEXT])
        safe_fields = {name: escape(str(value)[:MAX_TEXT]) for name, value in fields.items()}
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
    if sys.stderr is not None and stderr_is_journal():
        sys.stderr = JournalText(sys.stderr)


def escape(text: str) -> str:
    """The text on one line, with escapes such as `\\n` and `\\x1b` for control characters."""
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _open_system_log(config: Config) -> Sink:
    if config.daemonize or stderr_is_journal():
        try:
            return JournalSink()
        except ImportError:
            pass
    return SyslogSink()


def _choose_sink(config: Config, system: Sink) -> Sink:
    if config.logfile:
        return FileSink(config.logfile)
    return system if config.daemonize or stderr_is_journal() else StderrSink(False)


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
        except (OSError, ImportError):  # no descriptor is left to import what it needs
            return False


def _is_on_disk(fd: int) -> bool:
    """Whether writing to a descriptor may wait for a filesystem; True if that is unknown."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return True
    return S_ISREG(mode) or S_ISBLK(mode)
